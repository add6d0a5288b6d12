"""Tells dogs from cats, from 25,000 photos that are downloaded first (787 MB).

GYMTRAIN_DATA names the directory for them; GYMTRAIN_MIRROR another place to get them from than their publisher.
"""

import sys

from gymtrain import Dataset, Model, Tracking, Trainer

dataset = Dataset(
    dataset={"type": "dogs_vs_cats"},
    samples={"train": 0.8, "test": 0.2},
    preprocessors=[{"type": "image_resize", "width": 100, "height": 100}],
    data_augmentors=[{"type": "random_color", "probability": 0.4, "min_factor": 0.2, "max_factor": 0.7}],
    shuffle=True,
    one_hot=True,
)
model = Model(
    model={"type": "dogs_vs_cats_cnn", "input_shape": [100, 100, 3]}, training={"epochs": 10, "batch_size": 32}
)
tracking = Tracking(
    log_model_params=True, log_training_params=False, trackers=[{"type": "mlflow"}, {"type": "tensorboard"}]
)

trainer = Trainer(dataset=dataset, model=model, tracking=tracking)
result = trainer.train()
trainer.save("saved_trainer.zip")
print(f"accuracy on photos it has not seen: {result['metrics']['test/accuracy']:.2f}")

X = sys.argv[1:]  # photos of yours
if X:
    loaded = Trainer.load("saved_trainer.zip")
    for path, label, probabilities in zip(X, loaded.predict(X), loaded.predict_proba(X), strict=True):
        print(f"{path}: {label} ({max(probabilities):.0%})")
