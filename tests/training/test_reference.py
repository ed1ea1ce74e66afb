import json

import naive
import pytest
import torch
from tiny_decoders import move, tiny_model, with_lora
from training_cases import OBJECTIVE, examples_of, open_trainer

from realignment.likelihood.backbone import output_head
from realignment.likelihood.packing import Layout
from realignment.training.collation import Collator
from realignment.training.reference import CachedReferenceError, cache_reference

KEY = "k" * 64


def cache(model, folder, *, kind="states", key=KEY, examples=None):
    examples = examples or examples_of(tiny_model())
    return cache_reference(
        model, examples, folder / "kept", kind=kind, layout=Layout(0), token_budget=30, key=key
    )


def loss_and_gradients(model, folder, *, cached=None, **options):
    trainer = open_trainer(model, folder, **options)
    loss = trainer.compute_loss(
        model, Collator(Layout(0), cached_reference=cached)(examples_of(tiny_model()))
    )
    return float(loss.detach()), naive.gradient(model, loss)


@pytest.mark.parametrize("kind", ["states", "top256"])
def test_with_a_cached_reference_loss_and_gradients_of_adapters_are_those_of_the_same_batch(tmp_path, kind):
    """The tiny vocabulary fits into the top, so that both kinds are exact but for float32."""
    cached = cache(with_lora(tiny_model()), tmp_path, kind=kind)
    model = with_lora(tiny_model(), moved=True)
    loss, gradients = loss_and_gradients(model, tmp_path)
    cached_loss, cached_gradients = loss_and_gradients(model, tmp_path, cached=cached)
    assert cached_loss == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(cached_gradients, gradients, rtol=1e-4, atol=1e-6)


def test_full_fine_tuning_needs_no_copy_of_the_model_but_of_its_head(tmp_path):
    reference, model = tiny_model().requires_grad_(False), move(tiny_model(), scale=0.02)
    cached = cache(tiny_model(), tmp_path)
    loss, gradients = loss_and_gradients(model, tmp_path, reference_model=reference)
    trainer = open_trainer(model, tmp_path)
    trainer._reference_head = output_head(reference)
    cached_loss = trainer.compute_loss(
        model, Collator(Layout(0), cached_reference=cached)(examples_of(tiny_model()))
    )
    assert float(cached_loss.detach()) == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(naive.gradient(model, cached_loss), gradients, rtol=1e-4, atol=1e-6)


def test_what_is_there_is_opened_and_not_computed_again(tmp_path):
    first = cache(tiny_model(), tmp_path)
    again = cache(None, tmp_path)
    for name, array in first.arrays.items():
        assert (array == again.arrays[name]).all()
    assert not list(tmp_path.glob("*.partial"))


def test_a_run_that_was_cut_short_leaves_nothing_that_counts(tmp_path):
    (tmp_path / "kept.partial").mkdir()
    (tmp_path / "kept.partial" / "hidden.npy").write_bytes(b"half")
    assert cache(tiny_model(), tmp_path).arrays["hidden"].shape[1] == 16


def test_a_damaged_file_and_another_run_are_refused(tmp_path):
    cache(tiny_model(), tmp_path)
    with pytest.raises(CachedReferenceError, match=r"of another run.*Remove the folder"):
        cache(tiny_model(), tmp_path, key="o" * 64)
    with pytest.raises(CachedReferenceError, match="of another run"):
        cache(tiny_model(), tmp_path, kind="top256")
    file = tmp_path / "kept" / "hidden.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CachedReferenceError, match="hidden does not match its digest"):
        cache(tiny_model(), tmp_path)
    (tmp_path / "kept" / "kept.json").write_text(json.dumps({}))
    with pytest.raises(CachedReferenceError, match="cannot be read"):
        cache(tiny_model(), tmp_path)


def test_each_pair_gets_its_own_tokens_whatever_the_order(tmp_path):
    cached, examples = cache(tiny_model(), tmp_path), examples_of(tiny_model())
    retained = [e.pair_id for e in examples if not e.treatment.is_conflict]
    both = cached.select(retained[::-1][:2])["hidden"]
    alone = [cached.select([pair_id])["hidden"] for pair_id in retained[::-1][:2]]
    assert torch.equal(both, torch.cat(alone))
    assert OBJECTIVE.kl_weight > 0
