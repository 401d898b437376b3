"""The training library without Ray: captions, damage, targets, losses, evaluation, towers."""

from __future__ import annotations

import copy
import math
import multiprocessing
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from product_retrieval.training.captions import Caption, Depicted, draw_caption, folded, meanings, without_color
from product_retrieval.training.card import ExportedModel
from product_retrieval.training.evaluation import Gallery, clustered_interval, evaluate, hits
from product_retrieval.training.loop import rate
from product_retrieval.training.losses import Pictured, contrastive_loss, gathered, imitation_loss, matches
from product_retrieval.training.noise import damaged, in_markup, truncated, with_code, with_typos
from product_retrieval.training.pictures import as_input
from product_retrieval.training.tokenization import train_tokenizer
from product_retrieval.training.towers import TowerShape, build_towers, export_folder

SOFA = Depicted(
    title="Red corner sofa",
    color="red",
    category="Living room",
    tags=("couch", "seat"),
    translations=("Ecksofa", "canapé d'angle"),
    description="A corner sofa for a living room.",
)


def pictured(group: str, color: str, name: str) -> Pictured:
    return Pictured(identity=f"{group}|{color}", group_id=group, title=f"{color} {name}".strip(), name=name)


def caption(key: str, *, names_color: bool = True) -> Caption:
    return Caption(text=key, meaning=(key,), key=key, names_color=names_color)


@pytest.mark.parametrize(
    ("title", "color", "name"),
    [
        ("Red sofa", "red", "sofa"),
        ("Sofa, navy blue", "navy blue", "Sofa"),
        ("Sofa", "red", "Sofa"),
        ("Red", "red", "Red"),
        ("Sofa", "", "Sofa"),
    ],
)
def test_color_is_taken_out_of_a_title(title: str, color: str, name: str) -> None:
    assert without_color(title, color) == name


def test_captions_of_equal_generators_are_equal_and_others_differ() -> None:
    first = [draw_caption(SOFA, Random(seed), noise=0.5) for seed in range(50)]
    again = [draw_caption(SOFA, Random(seed), noise=0.5) for seed in range(50)]
    assert first == again
    assert len({each.text for each in first}) > 10


def test_every_meaning_of_a_caption_is_known_to_the_teacher() -> None:
    known = set(meanings(SOFA))
    drawn = [draw_caption(SOFA, Random(seed), noise=0.5) for seed in range(300)]
    assert {part for each in drawn for part in each.meaning} <= known


def test_clean_captions_name_the_right_color_or_none() -> None:
    for seed in range(300):
        drawn = draw_caption(SOFA, Random(seed), noise=0.0)
        if drawn.key == "corner sofa":
            assert not drawn.names_color
            assert "red" not in drawn.text.lower()
        else:
            assert drawn.key == "red corner sofa"


def test_a_product_with_nothing_but_a_title_gets_captions() -> None:
    drawn = {draw_caption(Depicted(title="spoon"), Random(seed), noise=0.0).text for seed in range(100)}
    assert "spoon" in drawn
    assert all("spoon" in text for text in drawn)


@pytest.mark.parametrize("num_typos", [1, 2])
def test_typos_change_the_length_by_at_most_their_number(num_typos: int) -> None:
    for seed in range(100):
        misspelt = with_typos("navy blue sofa", Random(seed), num_typos=num_typos)
        assert abs(len(misspelt) - 14) <= num_typos


def test_most_typos_are_visible() -> None:
    assert sum(with_typos("blue sofa", Random(seed), num_typos=1) != "blue sofa" for seed in range(100)) > 90


@pytest.mark.parametrize("text", ["", "1", "x", "42 %"])
def test_texts_without_letters_survive_typos(text: str) -> None:
    assert with_typos(text, Random(0), num_typos=2) == text


def test_markup_and_codes_keep_the_text() -> None:
    for seed in range(50):
        assert "blue sofa" in in_markup("blue sofa", Random(seed))
        assert "blue sofa" in with_code("blue sofa", Random(seed))


def test_truncation_keeps_the_beginning() -> None:
    for seed in range(50):
        cut = truncated("a long blue sofa", Random(seed))
        assert "a long blue sofa".startswith(cut)
        assert 9 <= len(cut) < 16
    assert truncated("mug", Random(0)) == "mug"


def test_damage_is_deterministic() -> None:
    assert [damaged("blue sofa", Random(n)) for n in range(40)] == [damaged("blue sofa", Random(n)) for n in range(40)]


def test_matches_know_sizes_titles_names_and_families() -> None:
    pictures = [
        pictured("g1", "red", "sofa"),  # 0
        pictured("g1", "blue", "sofa"),  # 1: same mesh, other colour
        pictured("g2", "red", "sofa"),  # 2: other mesh of the same title
        pictured("g1", "red", "sofa"),  # 3: same mesh and colour, other size
        pictured("g3", "", "lamp"),  # 4
    ]
    captions = [
        caption("red sofa"),
        caption("blue sofa"),
        caption("sofa", names_color=False),
        caption("red sofa"),
        caption("lamp"),
    ]
    expected = [
        [1, 0, 1, 1, 0],
        [0, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert matches(captions, pictures).astype(int).tolist() == expected


def test_colorless_caption_fits_its_whole_family_under_any_name() -> None:
    pictures = [pictured("g1", "red", "sofa"), pictured("g1", "blue", "couch"), pictured("g2", "blue", "couch")]
    captions = [caption("sofa", names_color=False), caption("blue couch"), caption("blue couch")]
    assert matches(captions, pictures)[0].tolist() == [True, True, False]


def test_title_without_a_color_means_the_product_as_made_not_its_dyed_sisters() -> None:
    pictures = [pictured("g1", "", "sofa"), pictured("g1", "blue", "sofa")]
    captions = [caption("sofa"), caption("blue sofa")]
    assert matches(captions, pictures).astype(int).tolist() == [[1, 0], [0, 1]]


def test_contrastive_loss_of_constant_scores_is_log_of_batch() -> None:
    same = torch.ones(4, 2) / math.sqrt(2)
    loss = contrastive_loss(same, same, torch.eye(4, dtype=torch.bool), torch.tensor(5.0))
    assert loss.item() == pytest.approx(math.log(4))


def test_contrastive_loss_of_two_right_pairs_by_hand() -> None:
    axes = torch.eye(2)
    loss = contrastive_loss(axes, axes, torch.eye(2, dtype=torch.bool), torch.tensor(3.0))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-3)))


def test_shared_captions_are_not_pushed_apart() -> None:
    axes = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    everything_fits = torch.ones(2, 2, dtype=torch.bool)
    vectors = axes.clone().requires_grad_()
    contrastive_loss(vectors, axes, everything_fits, torch.tensor(3.0)).backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().max().item() < 1e-6


def test_imitation_loss_is_zero_for_equal_directions_and_teaches_the_student_only() -> None:
    student = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    loss = imitation_loss(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert teacher.grad is None


def test_hits_by_hand_with_ties_and_several_answers() -> None:
    scores = np.array([[0.9, 0.1, 0.5], [0.5, 0.5, 0.5], [0.1, 0.9, 0.2]], dtype=np.float32)
    relevant = np.array([[True, False, False], [True, False, False], [True, False, True]])
    assert hits(scores, relevant, 1).tolist() == pytest.approx([1.0, 1 / 3, 0.0])
    assert hits(scores, relevant, 2).tolist() == pytest.approx([1.0, 2 / 3, 1.0])


def test_interval_of_equal_clusters_is_a_point() -> None:
    assert clustered_interval(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0, 0, 1, 1])) == (0.5, 0.5)


def test_interval_over_few_clusters_is_wider_than_over_many() -> None:
    values = np.array([1.0] * 50 + [0.0] * 50)
    low, high = clustered_interval(values, np.arange(100))
    wide_low, wide_high = clustered_interval(values, np.arange(100) // 25)
    assert wide_high - wide_low > high - low > 0


def test_perfect_model_hits_everything_and_typos_cost_a_model_that_reads_letters() -> None:
    gallery = Gallery(
        titles=("red sofa", "blue lamp", "oak table"),
        group_ids=("a", "b", "c"),
        pixels=np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(3, axis=3),
    )
    known = {title: row for row, title in enumerate(gallery.titles)}

    def encode_texts(texts: object) -> np.ndarray:
        rows = [known.get(folded(text)) for text in texts]  # type: ignore[attr-defined]
        return np.stack([np.eye(3, dtype=np.float32)[row] if row is not None else -np.ones(3) for row in rows])

    tasks = evaluate(gallery, lambda pixels: np.eye(3, dtype=np.float32)[pixels[:, 0, 0, 0]], encode_texts)
    assert tasks["text_to_image"]["hit@1"] == tasks["capitals_to_image"]["hit@1"] == 1.0
    assert tasks["two_typos_to_image"]["hit@1"] < 1.0


def test_learning_rate_rises_then_falls() -> None:
    assert 0 < rate(0.0) < 0.01
    assert rate(0.03) == pytest.approx(1.0, abs=0.01)
    assert rate(0.5) == pytest.approx(0.505, abs=0.01)
    assert rate(1.0) == pytest.approx(0.01)


def test_tokenizer_ignores_capitals_and_markup_and_knows_every_letter() -> None:
    tokenizer = train_tokenizer(["red sofa", "blue lamp"] * 20, vocabulary=300)
    clean = tokenizer("red sofa")["input_ids"]
    assert tokenizer("<b>RED</b>  Sofa&nbsp;")["input_ids"] == clean
    assert (
        tokenizer.decode(tokenizer("größe 12 мебель")["input_ids"], skip_special_tokens=True).strip()
        == "größe 12 мебель"
    )
    assert len(tokenizer("sofa " * 100, truncation=True)["input_ids"]) == 32


def test_exported_folder_gives_the_vectors_of_the_trained_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = TowerShape(
        hidden_sizes=(8, 8, 16, 16), embedding_size=8, vision_width=64, text_width=64, vocabulary=300, dim=16
    )
    towers = build_towers(shape).eval()
    tokenizer = train_tokenizer(["red sofa", "blue lamp"] * 20, vocabulary=300)
    export_folder(towers, tokenizer, tmp_path)
    exported = ExportedModel(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    texts = ["red sofa", "a blue lamp, 12 cm"]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        images = towers.get_image_features(pixel_values=as_input(pixels)).pooler_output
        words = towers.get_text_features(**tokens).pooler_output
    assert cosines(exported.encode_images(pixels), images.numpy()).min() > 0.9995
    assert cosines(exported.encode_texts(texts), words.numpy()).min() > 0.9995
    assert next(iter(copy.deepcopy(towers).parameters())).dtype == torch.float32


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def gradient_of_rank(rank: int, file: str, answers: multiprocessing.Queue) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    own = torch.tensor([[1.0 + rank]], requires_grad=True)
    joined = gathered(own)
    (joined[0] * joined[1] ** 2).sum().backward()
    answers.put((rank, joined.flatten().tolist(), own.grad.item()))
    torch.distributed.destroy_process_group()


def test_gathered_vectors_carry_the_gradients_of_all_workers(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    workers = [
        context.Process(target=gradient_of_rank, args=(rank, str(tmp_path / "group"), answers)) for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    received = sorted(answers.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)
    # both workers have x = 1, y = 2 and the loss x * y**2: each sums two equal derivatives, 2 * y**2 and 2 * 2xy
    assert received == [(0, [1.0, 2.0], 8.0), (1, [1.0, 2.0], 8.0)]
