"""The text tower's tokenizers: pieces learned from the training texts, or some of the teacher's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

MAX_TOKENS = 32
"""Longest text in tokens; product titles have 5 to 12."""
PAD, BEGIN, END = "[PAD]", "[BEGIN]", "[END]"
SPECIAL_TOKENS = (PAD, BEGIN, "[MASK]", END)
"""[END] must not be entry 2: CLIPTextModel then takes the text's vector at the highest entry instead of at [END]."""
BERT_BEGIN, BERT_END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
BERT_SPECIAL_TOKENS = (PAD, UNKNOWN, BERT_BEGIN, BERT_END)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE that ignores case and mark-up; each text can be written, nothing is unknown.

    Args:
        texts: training texts; the result depends on them only.
        vocabulary: entries, among them the 256 bytes and the special tokens.

    Returns:
        The tokenizer, padding on the right, at most `MAX_TOKENS` tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            *_without_markup(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Prepend(" "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}[\p{L}\p{M}]*| ?\p{N}| ?[^\s\p{L}\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(BEGIN, SPECIAL_TOKENS.index(BEGIN)), (END, SPECIAL_TOKENS.index(END))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


def choose_pieces(pieces: Sequence[str], texts: Iterable[str], *, vocabulary: int) -> list[str]:
    """Choose the word pieces of a large vocabulary that a small one keeps.

    Args:
        pieces: the large vocabulary of a BERT.
        texts: what will be read.
        vocabulary: pieces to keep, at most.

    Returns:
        The special tokens, the single characters that are ASCII or occur in the texts, so that most words can be
        spelled, then the pieces of the most texts.
    """
    counts: Counter[str] = Counter()
    for encoding in word_pieces(pieces).backend_tokenizer.encode_batch(list(texts), add_special_tokens=False):
        counts.update(set(encoding.tokens))
    single = [piece for piece in pieces if len(piece.removeprefix("##")) == 1]
    kept = [*BERT_SPECIAL_TOKENS, *(piece for piece in single if piece.isascii() or counts[piece])]
    kept += sorted(counts, key=lambda piece: (-counts[piece], piece))
    return list(dict.fromkeys(kept))[:vocabulary]


def word_pieces(pieces: Sequence[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer of given word pieces that ignores case, accents and mark-up.

    Args:
        pieces: the vocabulary, BERT's special tokens among it.

    Returns:
        The tokenizer, padding on the right, at most `MAX_TOKENS` tokens.

    Source: Wu et al., Google's Neural Machine Translation System, 2016, section 4.1.
    """
    tokenizer = Tokenizer(models.WordPiece({piece: row for row, piece in enumerate(pieces)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [*_without_markup(), normalizers.BertNormalizer(strip_accents=True, lowercase=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BERT_BEGIN} $A {BERT_END}",
        special_tokens=[(token, pieces.index(token)) for token in (BERT_BEGIN, BERT_END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=BERT_BEGIN,
        sep_token=BERT_END,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


def _without_markup() -> list[normalizers.Normalizer]:
    return [
        normalizers.Replace(Regex("<[^<>]{0,100}>"), " "),
        normalizers.Replace(Regex("&[a-zA-Z]{1,8};|&#[0-9]{1,6};"), " "),
        normalizers.NFKC(),
    ]
