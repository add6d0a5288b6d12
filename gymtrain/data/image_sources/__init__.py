"""Dataset types for images: published sets that are downloaded, folders, tables of paths, HDF5, the Hub."""
