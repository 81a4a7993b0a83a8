"""``translation_convtext``: fairseq's translation task with parallel decoding, and no sentence lost."""

from dataclasses import dataclass
from typing import Any, List

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_convtext.decoding.parallel_generator import ParallelGenerator, needs_stock_generator
from fairseq_convtext.errors import ConvTextError


@dataclass
class TranslationConvtextConfig(TranslationConfig):
    pass


@register_task("translation_convtext", dataclass=TranslationConvtextConfig)
class TranslationConvtextTask(TranslationTask):
    """May be chosen at generation time for a model that was trained under ``translation``.

    Besides the generator it changes two things: no batch is dropped for its size, so --required-batch-size-multiple
    has no effect, in training too; and a sentence beyond the limits is an error of one sentence.
    """

    def build_generator(self, models: List[Any], args: Any, seq_gen_cls: Any = None, **kwargs: Any) -> Any:
        """One pass and an argmax; the stock generator where the options ask for what only it can do."""
        stock = super().build_generator(models, args, seq_gen_cls=seq_gen_cls, **kwargs)
        if needs_stock_generator(models, args, seq_gen_cls, kwargs):
            return stock
        return ParallelGenerator(models, stock)

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
        if not ignore_invalid_inputs:
            _, too_long = dataset.filter_indices_by_size(indices, max_positions)
            if len(too_long) > 0:
                found, limits = dataset.size(too_long[0]), max_positions
                raise ConvTextError(
                    f"sentence {too_long[0]} (counted from 0) has {found[0]} source and {found[1]} target tokens, "
                    f"EOS included; the limits are {limits[0]} and {limits[1]}, the smaller of those here and of "
                    "those that the model was trained with: shorten it, raise --max-source-positions or "
                    "--max-target-positions, or leave such sentences out with --skip-invalid-size-inputs-valid-test."
                )
        return super().filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)
