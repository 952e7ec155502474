"""Mean IoU against counting with sets, as properties, by hand at the edges, and in the Trainer's evaluation."""

from __future__ import annotations

import doctest
import math

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import EvalPrediction, SegformerConfig, SegformerForSemanticSegmentation, set_seed

from hf_dynprune.metrics import MeanIoU, mean_iou, predicted_classes
from tests.support.helpers import pruning_trainer, stock_trainer

IGNORE = 255
few = settings(max_examples=40, deadline=None, database=None)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path_factory.mktemp("metrics")))
        yield


def by_sets(predictions, references, classes, ignore=IGNORE):
    """The published definitions by sets of pixels (image, row, column), one class after the other."""
    labelled, guessed = {}, {}
    for image, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        for row, (guesses, truths) in enumerate(zip(prediction, reference, strict=True)):
            for column, (guess, truth) in enumerate(zip(guesses, truths, strict=True)):
                if truth != ignore:
                    labelled.setdefault(int(truth), set()).add((image, row, column))
                    guessed.setdefault(int(guess), set()).add((image, row, column))
    iou, accuracy, right, total = [], [], 0, 0
    for one in range(classes):
        truth, guess = labelled.get(one, set()), guessed.get(one, set())
        iou.append(len(truth & guess) / len(truth | guess) if truth | guess else math.nan)
        accuracy.append(len(truth & guess) / len(truth) if truth else math.nan)
        right, total = right + len(truth & guess), total + len(truth)
    means = [[x for x in values if not math.isnan(x)] for values in (iou, accuracy)]
    return {
        "mean_iou": sum(means[0]) / len(means[0]),
        "mean_accuracy": sum(means[1]) / len(means[1]),
        "overall_accuracy": right / total,
        "per_category_iou": iou,
        "per_category_accuracy": accuracy,
    }


def assert_equal(result, expected):
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def random_maps(seed, classes, images=5, height=6, width=7, ignored=0.2):
    """Predictions and references, both int64 `[B, H, W]`."""
    rng = np.random.default_rng(seed)
    predictions, references = rng.integers(0, classes, (2, images, height, width))
    references[rng.random(references.shape) < ignored] = IGNORE
    return predictions, references


def random_logits(seed, classes, images=3, size=(4, 5)):
    return np.random.default_rng(seed).standard_normal((images, classes, *size)).astype(np.float32)


def size_of(values):
    """Bytes of everything that hangs on an object's attributes."""
    if isinstance(values, np.ndarray):
        return values.nbytes
    if isinstance(values, torch.Tensor):
        return values.nbytes
    if isinstance(values, dict):
        return sum(map(size_of, values.values()))
    if isinstance(values, (list, tuple)):
        return sum(map(size_of, values))
    return len(values) if isinstance(values, (str, bytes)) else 8


# ---- Against sets of pixels ----


@few
@given(seed=st.integers(0, 2**32), classes=st.integers(2, 6), ignored=st.sampled_from([0.0, 0.3, 0.9]))
def test_equals_counting_with_sets(seed, classes, ignored):
    predictions, references = random_maps(seed, classes, ignored=ignored)
    references[0, 0, 0] = 0  # one pixel at least has a label
    result = MeanIoU(classes).compute(predictions=predictions, references=references)
    assert_equal(result, by_sets(predictions, references, classes))


@pytest.mark.parametrize(
    ("prediction", "reference", "iou", "accuracy"),
    [
        ([0, 1, 1, 2], [0, 0, 1, 2], [1 / 2, 1 / 2, 1], [1 / 2, 1, 1]),
        ([0, 0, 1, 1], [0, 0, 1, 0], [2 / 3, 1 / 2, math.nan], [2 / 3, 1, math.nan]),  # class 2 nowhere
        ([0, 2, 1, 1], [0, 0, 1, 1], [1 / 2, 1, 0], [1 / 2, 1, math.nan]),  # class 2 predicted only
        ([0, 0, 1, 1], [0, 0, 1, 2], [1, 1 / 2, 0], [1, 1, 0]),  # class 2 labelled only
        ([1, 1, 1, 1], [1, 1, 1, 1], [math.nan, 1, math.nan], [math.nan, 1, math.nan]),  # one class
        (
            [0, 1, 2, 2],
            [0, 1, 255, 255],
            [1, 1, math.nan],
            [1, 1, math.nan],
        ),  # predicted only where nothing is labelled
    ],
)
def test_by_hand(prediction, reference, iou, accuracy):
    result = MeanIoU(3).compute(predictions=[[prediction]], references=[[reference]])
    assert_equal(result, by_sets([[prediction]], [[reference]], 3))
    assert result["per_category_iou"] == pytest.approx(iou, nan_ok=True)
    assert result["per_category_accuracy"] == pytest.approx(accuracy, nan_ok=True)
    assert result["mean_iou"] == pytest.approx(np.nanmean(iou))
    assert all(type(result[name]) is float for name in ("mean_iou", "mean_accuracy", "overall_accuracy"))
    assert all(type(value) is float for value in result["per_category_iou"] + result["per_category_accuracy"])


@pytest.mark.parametrize("size", [(4, 5), (11, 16), (2, 3)], ids=["same size", "upsampled", "downsampled"])
def test_logits_count_as_the_classes_they_have_at_the_references_size(size):
    logits = random_logits(0, 4)
    references = np.random.default_rng(1).integers(0, 4, (3, *size))
    upsampled = F.interpolate(torch.tensor(logits), size=size, mode="bilinear", align_corners=False)
    ids = upsampled.argmax(1).tolist()
    expected = by_sets(ids, references.tolist(), 4)
    assert_equal(MeanIoU(4).compute(predictions=logits, references=references), expected)
    assert predicted_classes(torch.tensor(logits), torch.tensor(references)).tolist() == ids


def test_one_label_is_two_classes_by_the_sign_of_the_logit():
    logits = random_logits(2, 1, size=(3, 3))
    references = np.random.default_rng(3).integers(0, 2, (3, 6, 6))
    references[0, 0] = IGNORE
    upsampled = F.interpolate(torch.tensor(logits), size=(6, 6), mode="bilinear", align_corners=False)
    ids = [[[1 if value > 0 else 0 for value in row] for row in image[0]] for image in upsampled.tolist()]
    expected = by_sets(ids, references.tolist(), 2)
    metric = MeanIoU(num_labels=1)
    assert_equal(metric.compute(predictions=logits, references=references), expected)
    assert_equal(metric.compute(predictions=ids, references=references), expected)
    assert predicted_classes(torch.tensor(logits), torch.tensor(references)).tolist() == ids
    zero = metric.compute(predictions=np.zeros((1, 1, 1, 2), np.float32), references=[[[0, 0]]])
    assert zero["overall_accuracy"] == 1.0


# ---- Properties ----


@few
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 5), max_size=3))
def test_the_split_into_batches_and_the_order_of_images_make_no_difference(seed, cuts):
    predictions, references = random_maps(seed, 4)
    expected = MeanIoU(4).compute(predictions=predictions, references=references)
    metric = MeanIoU(4)
    for batch in np.split(np.random.default_rng(seed).permutation(5), sorted(cuts)):  # some of no image
        metric.add_batch(predictions=predictions[batch], references=references[batch])
    assert len(metric) == 5
    assert repr(metric.compute()) == repr(expected)  # repr: a NaN is no other's equal


@few
@given(seed=st.integers(0, 2**32), classes=st.integers(2, 5))
def test_a_perfect_prediction_has_one_everywhere_and_any_other_lies_between(seed, classes):
    predictions, references = random_maps(seed, classes)
    metric = MeanIoU(classes)
    right = metric.compute(predictions=np.where(references == IGNORE, 0, references), references=references)
    assert right["mean_iou"] == right["mean_accuracy"] == right["overall_accuracy"] == 1.0
    result = metric.compute(predictions=predictions, references=references)
    present = [x for x in result["per_category_iou"] if not math.isnan(x)]
    assert all(0 <= x <= 1 for x in present)
    assert min(present) <= result["mean_iou"] <= max(present)
    pairs = zip(result["per_category_iou"], result["per_category_accuracy"], strict=True)
    assert all(iou <= accuracy for iou, accuracy in pairs if not math.isnan(accuracy))


@few
@given(seed=st.integers(0, 2**32))
def test_renamed_classes_have_the_same_mean(seed):
    predictions, references = random_maps(seed, 4)
    names = np.append(np.random.default_rng(seed).permutation(4), IGNORE)
    renamed = names[predictions], names[np.where(references == IGNORE, 4, references)]
    a = MeanIoU(4).compute(predictions=predictions, references=references)
    b = MeanIoU(4).compute(predictions=renamed[0], references=renamed[1])
    assert a["mean_iou"] == pytest.approx(b["mean_iou"])
    assert a["mean_accuracy"] == pytest.approx(b["mean_accuracy"])


# ---- What comes in, what is kept ----


@pytest.mark.parametrize("kind", ["list", "array", "uint8 array", "read-only array", "tensor", "uint8 tensor", "maps"])
def test_ids_come_as_lists_arrays_or_tensors(kind):
    predictions, references = random_maps(5, 3)
    made = {
        "list": np.ndarray.tolist,
        "array": np.asarray,
        "uint8 array": lambda maps: maps.astype(np.uint8),
        "read-only array": lambda maps: np.broadcast_to(maps, maps.shape),
        "tensor": torch.tensor,
        "uint8 tensor": lambda maps: torch.tensor(maps.astype(np.uint8)),
        "maps": lambda maps: [torch.tensor(maps[0]), *maps[1:]],
    }[kind]
    result = MeanIoU(3).compute(predictions=made(predictions), references=made(references))
    assert_equal(result, by_sets(predictions, references, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_logits_of_any_precision_are_upsampled_in_32_bits_at_least(dtype):
    logits = torch.tensor(random_logits(6, 5)).to(dtype)
    logits.requires_grad_()
    references = torch.tensor(np.random.default_rng(7).integers(0, 5, (3, 13, 17)))
    precise = logits.detach().to(torch.promote_types(dtype, torch.float32))
    ids = F.interpolate(precise, size=(13, 17), mode="bilinear", align_corners=False).argmax(1)
    assert torch.equal(predicted_classes(logits, references).long(), ids)
    result = MeanIoU(5).compute(predictions=logits, references=references)
    assert_equal(result, by_sets(ids.tolist(), references.tolist(), 5))
    if dtype != torch.bfloat16:
        of_array = MeanIoU(5).compute(predictions=logits.detach().numpy(), references=references.numpy())
        assert repr(of_array) == repr(result)


def test_images_may_differ_in_size_within_a_list():
    rng = np.random.default_rng(8)
    sizes = [(3, 4), (5, 2), (1, 1)]
    ids, references = ([rng.integers(0, 3, size) for size in sizes] for _ in range(2))
    expected = by_sets(ids, references, 3)
    assert_equal(MeanIoU(3).compute(predictions=ids, references=references), expected)
    logits = [2.0 * np.eye(3)[one].transpose(2, 0, 1) for one in ids]
    assert_equal(MeanIoU(3).compute(predictions=logits, references=references), expected)
    one_by_one = MeanIoU(3)
    for one, reference in zip(ids, references, strict=True):
        one_by_one.add(prediction=one, reference=reference)
    assert_equal(one_by_one.compute(), expected)


def test_a_tie_goes_to_the_lower_class():
    metric = MeanIoU(3)
    tied = metric.compute(predictions=np.zeros((1, 3, 2, 2), np.float32), references=np.zeros((1, 2, 2), int))
    assert tied["overall_accuracy"] == 1.0


def test_logits_are_at_full_size_for_one_image_at_a_time(monkeypatch):
    seen, upsample = [], F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda logits, **size: seen.append(len(logits)) or upsample(logits, **size))
    logits, references = torch.zeros(4, 3, 2, 2), torch.zeros(4, 8, 8, dtype=torch.long)
    MeanIoU(3).add_batch(predictions=logits, references=references)
    predicted_classes(logits, references)
    assert seen == [1] * 8


def test_nothing_of_the_pixels_is_kept():
    metric = MeanIoU(4)
    metric.add(prediction=[[0]], reference=[[0]])
    before, ids = size_of(vars(metric)), np.zeros((2, 64, 64), int)
    for _ in range(20):
        metric.add_batch(predictions=ids, references=ids)
        metric.add_batch(predictions=np.zeros((2, 4, 16, 16), np.float32), references=ids)
    assert size_of(vars(metric)) == before < 2000  # of 655,360 bytes of predictions each time
    assert sum(value.nbytes for value in vars(metric).values() if isinstance(value, np.ndarray)) == 4 * 5 * 8
    assert len(metric) == 81
    assert metric.compute()["overall_accuracy"] == 1.0
    assert len(metric) == 0


def test_nothing_is_written_and_inputs_stay_as_they_are(tmp_path):
    metric = MeanIoU(3, cache_dir=str(tmp_path))
    predictions, references = random_maps(9, 3)
    logits = random_logits(9, 3, images=5)
    kept = [array.copy() for array in (predictions, references, logits)]
    metric.add_batch(predictions=predictions, references=references)
    metric.add_batch(predictions=logits, references=references)
    metric.compute()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
    for array, before in zip((predictions, references, logits), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_many_pixels_are_counted_exactly():
    metric = MeanIoU(2)
    metric._pixels[:] = [[2**53, 0, 0], [0, 0, 0]]  # as after as many right pixels
    metric.add(prediction=[[1]], reference=[[1]])
    assert metric._pixels.dtype == np.int64
    assert metric._pixels.tolist() == [[2**53, 0, 0], [0, 1, 0]]


# ---- What is refused ----


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[[3]]], [[[0]]], r"`predictions` must be classes 0 to 2 \(num_labels=3\), or .*; got 3\.$"),
        ([[[-1]]], [[[0]]], r"`predictions` must be classes 0 to 2 .*; got -1\.$"),
        ([[[255]]], [[[0]]], r"`predictions` must be classes 0 to 2 .*; got 255\.$"),
        ([[[0]]], [[[3]]], r"`references` must be classes 0 to 2 .* the `ignore_index` 255 in references; got 3\.$"),
        ([[[0]]], [[[-100]]], r"got -100\. The Trainer pads maps of unequal height with -100: bring"),
        ([[[0, 1]]], [[[0], [1]]], r"must have the size of the references, got \(1, 2\) for \(2, 1\): pass logits"),
        (np.zeros((1, 2, 4, 4)), [[[0]]], r"a channel of logits per class, got 2 with num_labels=3"),
        (np.zeros((1, 1, 4, 4)), [[[0]]], r"a channel of logits per class, got 1 with num_labels=3"),
        (
            np.zeros((1, 3, 3)),
            [[[0]]],
            r"`predictions` must be integer class ids \[B, H, W\] or .* float64 of shape \(3, 3\)",
        ),
        (
            np.zeros((1, 3, 3, 3), int),
            [[[0]]],
            r"or floating-point logits .* got for an image int64 of shape \(3, 3, 3\)",
        ),
        (
            np.zeros((1, 2, 2), bool),
            np.zeros((1, 2, 2), int),
            r"`predictions` must be numbers, .* bool of shape \(2, 2\)",
        ),
        (torch.zeros(1, 2, 2, dtype=torch.bool), [[[0]]], r"got for an image bool of shape \(2, 2\)"),
        ([[["a"]]], [[[0]]], r"`predictions` must be numbers, got for an image <U1"),
        (
            np.zeros((2, 2), int),
            [[[0]]],
            r"`predictions` must be a batch such as \[B, H, W\], got shape \(2, 2\): `add`",
        ),
        ([[[0]]], [[[0.0]]], r"`references` must be integer class ids \[B, H, W\], got for an image float32|float64"),
        ([[[0]]], [[[[0]]]], r"`references` must be integer .* int64 of shape \(1, 1, 1\)"),
        ([[[0]], [[0]]], [[[0]]], r"got 2 predictions for 1 references"),
        ([[[0]]], None, r"needs both `predictions` and `references`"),
        (None, [[[0]]], r"needs both `predictions` and `references`"),
    ],
)
def test_other_inputs_are_refused(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        MeanIoU(3).compute(predictions=predictions, references=references)


def test_what_was_predicted_without_a_label_is_not_looked_at():
    assert MeanIoU(2).compute(predictions=[[[0, 255]]], references=[[[0, 255]]])["mean_iou"] == 1.0


def test_nothing_of_a_refused_batch_is_counted():
    metric = MeanIoU(2)
    with pytest.raises(ValueError, match="got 7"):
        metric.add_batch(predictions=[[[0]], [[7]]], references=[[[0]], [[0]]])
    assert len(metric) == 0
    assert not metric._pixels.any()


def test_no_images_and_no_labelled_pixels_are_errors_and_the_next_result_starts_anew():
    metric = MeanIoU(2)
    for nothing in ({}, {"predictions": [], "references": []}):
        with pytest.raises(ValueError, match=r"MeanIoU of no images is undefined: call `add_batch`"):
            metric.compute(**nothing)
    with pytest.raises(ValueError, match=r"no labelled pixels is undefined: all references of the 2 images are 255"):
        metric.compute(predictions=[[[0]], [[1]]], references=[[[255]], [[255]]])
    assert len(metric) == 0
    assert metric.compute(predictions=[[[1]]], references=[[[1]]])["mean_iou"] == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_labels": 0}, r"`num_labels` must be at least 1, got 0"),
        ({"num_labels": 2.0}, r"`num_labels` must be an integer, got 2\.0"),
        ({"num_labels": True}, r"`num_labels` must be an integer, got True"),
        ({"num_labels": 2, "ignore_index": None}, r"`ignore_index` must be an integer, got None"),
        ({"num_labels": 3, "ignore_index": 2}, r"none of the classes 0 to 2, got 2: .* such as -1"),
        ({"num_labels": 1, "ignore_index": 1}, r"none of the classes 0 to 1, got 1"),
        ({"num_labels": 300}, r"none of the classes 0 to 299, got 255"),
        ({"num_labels": 2, "class_names": "ab"}, r"`class_names` must be a sequence of names, got 'ab'"),
        ({"num_labels": 2, "class_names": ["a", 1]}, r"a sequence of names, got \['a', 1\]"),
        ({"num_labels": 2, "class_names": ["a", ""]}, r"a sequence of names, got \['a', ''\]"),
        ({"num_labels": 3, "class_names": ["a", "b"]}, r"must be 3 different names, one per class, got \['a', 'b'\]"),
        ({"num_labels": 2, "class_names": ["a", "a"]}, r"must be 2 different names, one per class, got \['a', 'a'\]"),
        ({"num_labels": 1, "class_names": ["a"]}, r"must be 2 different names"),
        ({"num_labels": 2, "num_process": 2}, r"does not merge the counts of several processes, got num_process=2"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        MeanIoU(**given)


@pytest.mark.parametrize(
    ("logits", "got"),
    [
        (torch.zeros(1, 3, 3), r"got float32 of shape \(1, 3, 3\)"),
        (torch.zeros(1, 3, 3, 3, dtype=torch.long), "got int64 of shape"),
        (np.zeros((1, 3, 3, 3)), "got ndarray"),
    ],
)
def test_logits_that_are_none_have_no_classes(logits, got):
    with pytest.raises(ValueError, match=rf"`logits` must be a floating-point tensor \[B, C, h, w\], .* {got}"):
        predicted_classes(logits, torch.zeros(1, 3, 3))


# ---- In the Trainer ----


def test_classes_are_small_on_the_logits_device_and_the_first_of_several_outputs():
    logits = torch.zeros(2, 255, 2, 3)
    logits[:, 254] = 1
    ids = predicted_classes((logits, (logits, logits)), torch.zeros(2, 4, 6))
    assert (ids.dtype, ids.shape, ids.unique().tolist()) == (torch.uint8, (2, 4, 6), [254])
    assert predicted_classes(torch.zeros(1, 256, 1, 1)).dtype == torch.int32
    assert predicted_classes(logits, None).shape == (2, 2, 3)  # a data set without labels
    on_meta = predicted_classes(logits.to("meta"), torch.zeros(2, 4, 6, device="meta"))
    assert on_meta.device.type == "meta"


def test_a_result_comes_with_the_last_batch_and_names_the_classes_there_are():
    metric = MeanIoU(3, class_names=["sky", "road", "tree"])
    first = EvalPrediction(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]]))
    assert metric.batch_metrics(first, compute_result=False) == {}
    result = metric.batch_metrics(
        EvalPrediction(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]])), compute_result=True
    )
    assert result == {
        "mean_iou": pytest.approx(7 / 12),
        "mean_accuracy": pytest.approx(5 / 6),
        "overall_accuracy": 0.75,
        "iou_sky": pytest.approx(2 / 3),
        "iou_road": 0.5,
    }
    assert len(metric) == 0


def test_batches_that_were_not_concatenated_are_counted_each():
    predictions, references = random_maps(10, 3)
    ragged = EvalPrediction([predictions[:3], predictions[3:, :2]], [references[:3], references[3:, :2]])
    result = MeanIoU(3).batch_metrics(ragged)
    expected = by_sets([*predictions[:3], *predictions[3:, :2]], [*references[:3], *references[3:, :2]], 3)
    assert result == pytest.approx({name: expected[name] for name in result})


class Maps(Dataset):
    """Random images with a map of labels each, made once."""

    def __init__(self, classes, size=7, side=32):
        rng = np.random.default_rng(0)
        self.pixels = torch.tensor(rng.standard_normal((size, 3, side, side)), dtype=torch.float32)
        self.labels = torch.tensor(rng.integers(0, classes, (size, side, side)))
        self.labels[:, :3] = IGNORE

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


def segformer(num_labels, **config):
    set_seed(7)
    model = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[8, 16],
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
            decoder_hidden_size=16,
            num_labels=num_labels,
            **config,
        )
    )
    torch.nn.init.normal_(model.decode_head.classifier.weight)  # logits that differ from pixel to pixel
    return model


def expected_of(model, dataset, num_labels):
    """The whole set at once, and sets of pixels."""
    with torch.no_grad():
        logits = model.eval()(pixel_values=dataset.pixels).logits
    logits = F.interpolate(logits, size=dataset.labels.shape[-2:], mode="bilinear", align_corners=False)
    ids = (logits[:, 0] > 0).long() if num_labels == 1 else logits.argmax(1)
    assert len(ids.unique()) > 1
    return by_sets(ids.tolist(), dataset.labels.tolist(), max(num_labels, 2))


@pytest.mark.parametrize("build", [stock_trainer, pruning_trainer], ids=["stock", "ours"])
@pytest.mark.parametrize("num_labels", [4, 1])
@pytest.mark.parametrize("by_batch", [True, False], ids=["by batch", "at the end"])
@pytest.mark.parametrize("preprocess", [predicted_classes, None], ids=["classes", "logits"])
def test_an_evaluation_equals_the_whole_set(tmp_path, build, num_labels, by_batch, preprocess):
    dataset, model = Maps(max(num_labels, 2)), segformer(num_labels)
    metric = MeanIoU(num_labels, class_names=["a", "b", "c", "d"][: max(num_labels, 2)])
    flags = {"batch_eval_metrics": by_batch, "per_device_eval_batch_size": 3}  # 3, 3, 1
    if build is pruning_trainer:
        flags["per_sample_loss"] = lambda *_: pytest.fail("an evaluation asks for no loss per sample")
    trainer = build(model, dataset, tmp_path, eval_dataset=dataset, **flags)
    trainer.compute_metrics, trainer.preprocess_logits_for_metrics = metric.batch_metrics, preprocess
    expected = expected_of(model, dataset, num_labels)
    for _ in range(2):  # and the second evaluation starts anew
        result = trainer.evaluate()
        for name in ("mean_iou", "mean_accuracy", "overall_accuracy"):
            assert result[f"eval_{name}"] == pytest.approx(expected[name], abs=1e-12)
        named = [result[f"eval_iou_{name}"] for name in metric.class_names]
        assert named == pytest.approx(expected["per_category_iou"], abs=1e-12)
        assert len(metric) == 0
    assert 0 < expected["mean_iou"] < 1


@pytest.mark.parametrize("preprocess", [predicted_classes, None], ids=["classes", "logits"])
@pytest.mark.parametrize("flags", [{"eval_do_concat_batches": False}, {"eval_accumulation_steps": 1}], ids=repr)
def test_outputs_beside_the_logits_and_other_ways_to_collect_them(tmp_path, preprocess, flags):
    dataset, model = Maps(4), segformer(4, output_hidden_states=True)
    trainer = stock_trainer(model, dataset, tmp_path, eval_dataset=dataset, per_device_eval_batch_size=3, **flags)
    trainer.compute_metrics, trainer.preprocess_logits_for_metrics = MeanIoU(4).batch_metrics, preprocess
    assert trainer.evaluate()["eval_mean_iou"] == pytest.approx(expected_of(model, dataset, 4)["mean_iou"], abs=1e-12)


def test_an_evaluation_that_broke_off_does_not_count_in_the_next(tmp_path, caplog):
    dataset, model = Maps(4), segformer(4)
    metric, broken = MeanIoU(4), Maps(4)
    broken.labels[6] = 9  # in the last batch, after two were counted
    flags = {"batch_eval_metrics": True, "per_device_eval_batch_size": 3}
    trainer = stock_trainer(model, dataset, tmp_path, eval_dataset=dataset, **flags)
    trainer.compute_metrics, trainer.preprocess_logits_for_metrics = metric.batch_metrics, predicted_classes
    expected = expected_of(model, dataset, 4)["mean_iou"]
    with pytest.raises(IndexError, match="Target 9"):  # from the model's loss, before the metric sees it
        trainer.evaluate(broken)
    assert len(metric) == 6
    assert trainer.evaluate()["eval_mean_iou"] == pytest.approx(expected, abs=1e-12)
    assert [record.getMessage() for record in caplog.records if record.name == "hf_dynprune"] == [
        "MeanIoU drops 6 images of an evaluation that broke off."
    ]
    caplog.clear()
    with pytest.raises(IndexError, match="Target 9"):
        trainer.evaluate(broken)
    metric.reset()  # as one does where the loader is kept
    assert trainer.evaluate()["eval_mean_iou"] == pytest.approx(expected, abs=1e-12)
    assert caplog.records == []


def test_the_examples_run():
    result = doctest.testmod(mean_iou)
    assert (result.failed, result.attempted) == (0, 2)


def test_it_is_an_evaluate_metric_that_needs_no_network_and_no_generator(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the metric opened a connection"))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    state = torch.get_rng_state()
    metric = MeanIoU(2)
    assert isinstance(metric, evaluate.Metric)
    assert "stored examples: 0" in repr(metric)
    metric.compute(predictions=[[[1]]], references=[[[1]]])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state)
