from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_forge import Forge, Part, make_contents, read_all
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from gymtrain.bundle import (
    SignedBy,
    differences,
    from_numpy,
    generate_key,
    inspect,
    open_bundle,
    sealing,
    sign,
    signer,
    write,
)
from gymtrain.bundle import format as bundle_format
from gymtrain.errors import BundleError, SaveError, SpecError

PRIVATE, PUBLIC = generate_key()
OTHER_PRIVATE, OTHER_PUBLIC = generate_key()


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    write(tmp_path / "signed.zip", make_contents(), sign=signer(PRIVATE))
    return tmp_path / "signed.zip"


def refused(path: Path, signed_by: SignedBy | None = None) -> BundleError:
    with pytest.raises(BundleError) as caught:
        open_bundle(path, signed_by=signed_by)
    return caught.value


def rewritten(path: Path, changes: dict[str, bytes]) -> Path:
    """Write a bundle with other content in some members; the manifest stays as it is."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | changes
    forged = Forge([Part(name.encode(), content) for name, content in members.items()])
    target = path.with_name("forged.zip")
    target.write_bytes(forged.pack())
    return target


def test_a_signed_bundle_opens_for_who_has_the_key_and_for_who_does_not_ask(signed: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.zip"
    write(plain, make_contents())

    with open_bundle(signed, signed_by=PUBLIC) as bundle:
        assert bundle.signature is not None
    assert read_all(signed) == read_all(plain)
    with zipfile.ZipFile(signed) as archive:
        assert archive.namelist()[-2:] == ["manifest.json", "signature.json"]
        assert "signature.json" not in json.loads(archive.read("manifest.json"))["members"]


def test_a_bundle_that_is_not_signed_or_by_another_key_is_refused_where_a_key_is_asked_for(
    signed: Path, tmp_path: Path
) -> None:
    write(tmp_path / "plain.zip", make_contents())

    for error, words in (
        (refused(tmp_path / "plain.zip", PUBLIC), "is not signed"),
        (refused(signed, OTHER_PUBLIC), "which is none of the 1 given"),
    ):
        assert (error.reason, words in str(error)) == ("signature", True)
    open_bundle(signed, signed_by=[OTHER_PUBLIC, PUBLIC]).close()


def test_what_was_changed_by_somebody_who_makes_new_digests_is_refused(signed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    write(other, make_contents(weights={"layer.weight": from_numpy(np.zeros(3))}))
    with zipfile.ZipFile(signed) as archive:
        signature = archive.read("signature.json")

    moved = rewritten(other, {"signature.json": signature})  # a good signature, of another manifest

    open_bundle(moved).close()
    error = refused(moved, PUBLIC)
    assert (error.reason, "is not a signature of this manifest" in str(error)) == ("signature", True)


def test_a_signature_that_claims_the_key_of_another_is_refused(signed: Path) -> None:
    with zipfile.ZipFile(signed) as archive:
        manifest = archive.read("manifest.json")
        claimed = json.loads(archive.read("signature.json"))["public_key"]
    forged = json.loads(signer(OTHER_PRIVATE)(manifest)) | {"public_key": claimed}

    error = refused(rewritten(signed, {"signature.json": json.dumps(forged).encode()}), PUBLIC)

    assert error.reason == "signature"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"algorithm": "rsa"}, "field_value"),
        ({"algorithm": None}, "field_value"),
        ({"public_key": "00" * 31}, "field_value"),
        ({"signature": "0" * 127 + "G"}, "field_value"),
        ({"signature": 7}, "field_value"),
        ({"comment": "hello"}, "unknown_field"),
    ],
)
def test_a_signature_of_another_form_is_refused_also_where_nobody_asks(
    changes: dict[str, Any], reason: str, signed: Path
) -> None:
    with zipfile.ZipFile(signed) as archive:
        content = json.loads(archive.read("signature.json")) | changes
    forged = rewritten(signed, {"signature.json": json.dumps(content).encode()})

    assert refused(forged).reason == reason
    with pytest.raises(BundleError, match=r"signature\.json"):
        inspect(forged)


def test_a_manifest_that_lists_the_signature_is_refused(signed: Path) -> None:
    with zipfile.ZipFile(signed) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    manifest["members"]["signature.json"] = {"size": 1, "sha256": "0" * 64}

    assert refused(rewritten(signed, {"manifest.json": json.dumps(manifest).encode()})).reason == "member_missing"


def test_signing_in_place_adds_a_signature_or_replaces_it_and_changes_nothing_else(tmp_path: Path) -> None:
    path, direct = tmp_path / "model.zip", tmp_path / "direct.zip"
    write(path, make_contents())
    write(direct, make_contents(), sign=signer(PRIVATE))
    before = path.read_bytes()

    sign(path, OTHER_PRIVATE)
    open_bundle(path, signed_by=OTHER_PUBLIC).close()
    sign(path, PRIVATE)

    assert path.read_bytes() == direct.read_bytes()
    manifest_at = before.index(b"manifest.json")
    assert path.read_bytes()[:manifest_at] == before[:manifest_at]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["direct.zip", "model.zip"]


def test_what_is_damaged_is_not_signed(signed: Path) -> None:
    data = bytearray(signed.read_bytes())
    with zipfile.ZipFile(signed) as archive:
        data[archive.getinfo("weights.safetensors").header_offset + 300] ^= 1
    signed.write_bytes(data)

    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        sign(signed, PRIVATE)
    assert signed.read_bytes() == data


def test_keys_come_as_files_or_bytes_in_pem_or_of_openssh_or_as_objects(signed: Path, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(PRIVATE, None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    openssh = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "key.pub").write_bytes(PUBLIC)
    (tmp_path / "id.pub").write_bytes(openssh + b" me@host\n")
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
    )
    of_openssh = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )

    with pytest.raises(SpecError, match="holds no private key that can be used"):
        sign(signed, locked)
    sign(signed, locked, b"word")
    sign(signed, of_openssh)
    sign(signed, key)

    given: list[Any] = [tmp_path / "key.pub", str(tmp_path / "id.pub"), PUBLIC, openssh, key.public_key()]
    for each in (*given, tuple(given)):
        open_bundle(signed, signed_by=each).close()
    assert inspect(signed)["signature"]["public_key"] == key.public_key().public_bytes_raw().hex()


def test_what_is_no_key_is_refused_in_words(signed: Path, tmp_path: Path) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    pem = curve.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    wrong: list[tuple[Any, str]] = [
        (b"hello", "holds no public key"),
        (PRIVATE, "holds no public key"),
        (pem, "is a key of another kind; expected an Ed25519 public key"),
        (7, "got a int; expected the path of a key"),
        ([], "got no key"),
    ]

    for given, words in wrong:
        with pytest.raises(SpecError, match=words):
            open_bundle(signed, signed_by=given)
    for given, words in ((PUBLIC, "holds no private key"), (b"", "holds no private key"), (None, "got a NoneType")):
        with pytest.raises(SpecError, match=words):
            sign(signed, given)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        open_bundle(signed, signed_by=tmp_path / "nowhere.pub")


def test_what_is_used_is_what_was_checked_also_where_the_file_changes_afterwards(signed: Path) -> None:
    with open_bundle(signed, signed_by=PUBLIC) as bundle:
        before = bytes((bundle.weights() or {})["layer.weight"].data)
        signed.write_bytes(bytes(signed.stat().st_size))

        assert bytes((bundle.weights() or {})["layer.weight"].data) == before


def test_signed_bytes_and_file_objects_open_too_and_the_weights_are_always_verified(signed: Path) -> None:
    data = signed.read_bytes()
    given: list[Any] = [data, io.BytesIO(data)]

    for each in given:
        with open_bundle(each, signed_by=PUBLIC) as bundle:
            assert bundle.weights() is not None
    with open_bundle(signed, signed_by=PUBLIC, verify="lazy") as bundle:
        assert bundle.verification is not None
        bundle.verification.wait()
    with pytest.raises(SpecError, match="a signature is about the weights too"):
        open_bundle(signed, signed_by=PUBLIC, verify=False)


def test_without_the_library_signed_bundles_are_read_and_asking_for_a_key_names_the_extra(signed: Path) -> None:
    code = f"""
import sys
sys.modules["cryptography"] = None
from gymtrain.bundle import inspect, open_bundle
open_bundle({str(signed)!r}).close()
assert len(inspect({str(signed)!r})["signature"]["fingerprint"]) == 64
open_bundle({str(signed)!r}, signed_by=b"key")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "MissingDependencyError" in done.stderr
    assert "pip install 'gymtrain[signing]'" in done.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_checks_the_signature_and_gives_the_same_fingerprint(signed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(signed) as archive:
        (tmp_path / "manifest.json").write_bytes(archive.read("manifest.json"))
        content = json.loads(archive.read("signature.json"))
    (tmp_path / "signature").write_bytes(bytes.fromhex(content["signature"]))
    (tmp_path / "key.pub").write_bytes(PUBLIC)

    command = "openssl pkeyutl -verify -pubin -inkey key.pub -rawin -in manifest.json -sigfile signature"
    checked = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    printed = subprocess.run(
        "openssl pkey -pubin -in key.pub -outform DER | sha256sum", shell=True, cwd=tmp_path, capture_output=True
    )

    assert checked.returncode == 0, checked.stderr
    assert printed.stdout.split()[0].decode() == inspect(signed)["signature"]["fingerprint"]


def test_the_signature_is_a_member_of_the_format_with_a_limit() -> None:
    assert bundle_format.is_member("signature.json")
    assert bundle_format.max_bytes("signature.json") == 1 << 20


def test_what_is_not_signed_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(source: object) -> None:
        raise AssertionError("it was copied")

    monkeypatch.setattr("gymtrain.bundle.reader.PrivateCopy", copied)
    write(tmp_path / "plain.zip", make_contents())
    with open(tmp_path / "zeros.zip", "wb") as file:
        file.truncate(1 << 32)

    assert refused(tmp_path / "plain.zip", PUBLIC).reason == "signature"
    assert refused(tmp_path / "zeros.zip", PUBLIC).reason == "not_a_bundle"


def test_differences_tell_of_another_graph_beside_the_same_weights(tmp_path: Path) -> None:
    for name, graph in (("one", b"one"), ("other", b"two!")):
        write(tmp_path / f"{name}.zip", make_contents(onnx=graph))

    with open_bundle(tmp_path / "one.zip") as one, open_bundle(tmp_path / "other.zip") as other:
        assert [each.name for each in differences(one, other)] == ["model.onnx"]


def test_what_is_signed_is_what_was_verified_whatever_is_put_there_meanwhile(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "other.zip", make_contents(readme="# Another\n"))

    def replacing(key: object, password: object) -> Callable[[bytes], bytes]:
        def signature_of(manifest: bytes) -> bytes:
            (tmp_path / "other.zip").replace(signed)
            return signer(PRIVATE)(manifest)

        return signature_of

    monkeypatch.setattr(sealing, "signer", replacing)
    sign(signed, PRIVATE)

    assert open_bundle(signed, signed_by=PUBLIC).readme == make_contents().readme


@pytest.mark.parametrize("place", ["s3://models/x.zip", "runs:/8f3c", "https://example.org/x.zip?key=secret"])
def test_what_is_not_on_this_machine_is_not_signed(place: str) -> None:
    with pytest.raises(SaveError, match="is not on this machine; download it, sign the file, and upload it") as caught:
        sign(place, PRIVATE)

    assert "secret" not in str(caught.value)
