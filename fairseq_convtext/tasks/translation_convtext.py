"""``translation_convtext``: fairseq's translation task with parallel decoding, and no sentence lost."""

import logging
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Hashable, List, Optional

import torch
from fairseq import utils
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_convtext.decoding.ngram import NgramModel
from fairseq_convtext.decoding.prefix_beam import SearchOptions
from fairseq_convtext.decoding.rescoring import Judges
from fairseq_convtext.errors import ConvTextError, too_long
from fairseq_convtext.tasks.judges import load_judges
from fairseq_convtext.tasks.parallel_generator import ParallelGenerator, reasons_for_stock_generator

logger = logging.getLogger(__name__)

LM_WEIGHT = 0.3  # the default, by which it is seen whether the option was given


@dataclass
class TranslationConvtextConfig(TranslationConfig):
    ctc_beam: int = field(
        default=1,
        metadata={"help": "ctc, dag: prefixes that the search keeps; 1 reads the canvas without a search"},
    )
    ctc_lm: Optional[str] = field(
        default=None,
        metadata={
            "help": "n-gram language model for the search (scripts/train_ngram.py) of the training targets or "
            "more text: a token that is not in it is never written"
        },
    )
    ctc_lm_weight: float = field(
        default=LM_WEIGHT, metadata={"help": "weight of the language model in the search"}
    )
    ctc_token_bonus: float = field(
        default=0.0, metadata={"help": "added to the search's score for every token; makes translations longer"}
    )
    ctc_judges: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoints, separated by colons, that choose among what the search has found: models of this "
            "plugin (ctc or dag) or autoregressive ones, of either direction; each reads all hypotheses in one pass"
        },
    )
    ctc_judge_weights: List[float] = field(
        default_factory=list,
        metadata={"help": "one for each of --ctc-judges, such as 0.5,1; where left out 0.5 each"},
    )
    ctc_judge_token_bonus: float = field(
        default=0.0, metadata={"help": "with judges, added for every token besides --ctc-token-bonus"}
    )
    ctc_judged: Optional[int] = field(
        default=None,
        metadata={"help": "hypotheses of each sentence that --ctc-judges read, the search's best (default: all)"},
    )


@register_task("translation_convtext", dataclass=TranslationConvtextConfig)
class TranslationConvtextTask(TranslationTask):
    """May be chosen at generation time for a model that was trained under ``translation``.

    Besides the generator it changes two things: no batch is dropped for its size, so --required-batch-size-multiple
    has no effect, in training too; and a sentence beyond the limits is an error of one sentence.
    """

    def __init__(self, cfg: TranslationConvtextConfig, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.loaded: Dict[Hashable, Any] = {}

    def load_once(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """What generators read and never change; fairseq makes one for every call of model.translate()."""
        if key not in self.loaded:
            self.loaded[key] = load()
        return self.loaded[key]

    def build_generator(self, models: List[Any], args: Any, seq_gen_cls: Any = None, **kwargs: Any) -> Any:
        """One pass and an argmax; the stock generator where model or options ask for what only it can do."""
        search = self.search_options()
        if search is not None and getattr(args, "lenpen", 1) != 1:
            raise ConvTextError(
                f"--lenpen {args.lenpen} does not change what --ctc-beam finds: use --ctc-token-bonus for longer "
                "translations."
            )
        stock = super().build_generator(models, args, seq_gen_cls=seq_gen_cls, **kwargs)
        reasons = reasons_for_stock_generator(models, args, seq_gen_cls, kwargs)
        nbest = getattr(args, "nbest", 1)
        if search is not None and "nbest" in reasons:
            reasons.remove("nbest")
            if not 1 <= nbest <= search.beam:
                raise ConvTextError(
                    f"--nbest must be from 1 to what --ctc-beam {search.beam} holds; found {nbest}."
                )
        if not reasons:
            return ParallelGenerator(models, stock, search, nbest, self.judges(models[0], nbest))
        if search is not None:
            raise ConvTextError(
                f"--ctc-beam does not go together with {', '.join(reasons)}, which only fairseq's own generator knows: "
                "leave one of them out."
            )
        logger.info("step-by-step generation, because of: %s", ", ".join(reasons))
        return stock

    def search_options(self) -> Optional[SearchOptions]:
        """What --ctc-beam and its companions ask for; None reads the canvas without a search.

        Raises:
            ConvTextError: options that make no sense together, or a language model of other subwords.
        """
        beam, path = self.cfg.ctc_beam, self.cfg.ctc_lm
        if beam < 1:
            raise ConvTextError(f"--ctc-beam must be at least 1; found {beam}.")
        if beam == 1:
            usual = {"ctc_lm": None, "ctc_judges": None, "ctc_token_bonus": 0.0, "ctc_lm_weight": LM_WEIGHT}
            for name, value in usual.items():
                if (getattr(self.cfg, name) or value) != value:
                    flag = f"--{name.replace('_', '-')}"
                    raise ConvTextError(f"{flag} needs a search: add --ctc-beam, such as --ctc-beam 10.")
            return None
        if self.cfg.ctc_lm_weight < 0:
            raise ConvTextError(f"--ctc-lm-weight must not be negative; found {self.cfg.ctc_lm_weight}.")
        if not path and self.cfg.ctc_lm_weight != LM_WEIGHT:
            raise ConvTextError(f"--ctc-lm-weight {self.cfg.ctc_lm_weight} needs a language model: add --ctc-lm.")
        lm = self.load_once(path, lambda: NgramModel.load(path)) if path else None
        if lm is not None:
            lm.check_dictionary(self.target_dictionary.symbols)
        return SearchOptions(beam, lm=lm, lm_weight=self.cfg.ctc_lm_weight, token_bonus=self.cfg.ctc_token_bonus)

    def judges(self, model: Any, nbest: int) -> Optional[Judges]:
        """The models of --ctc-judges, in bfloat16 if ``model`` is; None without the option.

        Raises:
            ConvTextError: a missing file, another number of weights, or a model that cannot judge.
        """
        if not self.cfg.ctc_judges:
            for name in ("ctc_judge_weights", "ctc_judge_token_bonus", "ctc_judged"):
                if getattr(self.cfg, name):
                    raise ConvTextError(f"--{name.replace('_', '-')} needs --ctc-judges.")
            return None
        paths = utils.split_paths(self.cfg.ctc_judges)
        weights = list(self.cfg.ctc_judge_weights) or [0.5] * len(paths)
        if len(weights) != len(paths):
            raise ConvTextError(
                f"--ctc-judge-weights must have one number for each of the {len(paths)} checkpoints of --ctc-judges; "
                f"found {len(weights)}."
            )
        most = self.cfg.ctc_judged
        if most is not None and most < nbest:
            raise ConvTextError(f"--ctc-judged must be at least --nbest {nbest}; found {most}.")
        like = next(model.parameters())
        dtype = "bfloat16" if like.dtype == torch.bfloat16 else "float32"
        key = (*paths, like.device, dtype)
        models = self.load_once(key, lambda: load_judges(paths, self, like.device, dtype))
        return Judges(models, weights, self.cfg.ctc_judge_token_bonus, most)

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """As fairseq's, but a last batch of any size is kept.

        fairseq drops the last batch when its size is not a multiple of --required-batch-size-multiple, whose
        default is 8, and with it sentences that then miss from the output.
        """
        kwargs["required_batch_size_multiple"] = 1
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def filter_indices_by_size(
        self, indices: Any, dataset: Any, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> Any:
        """As fairseq's, but a sentence that is too long is an error of one sentence."""
        try:
            return super().filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)
        except Exception as error:  # fairseq's is a bare one
            mistake = too_long(error)
            if mistake is None:
                raise
            raise mistake from error
