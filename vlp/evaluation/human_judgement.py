"""Agreement with people on how well captions fit images, as CLIPScore is judged (arXiv:2104.08718)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from vlp.core.config import naming
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.sets import JudgedCaptions
from vlp.metrics.outcomes import Judgements
from vlp.metrics.zero_shot import check_templates


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class HumanJudgement(Evaluation[JudgedCaptions]):
    """Kendall's tau-b and tau-c between similarities and every single judgement.

    A pair that three people judged is three items of one similarity: tau depends on that choice.
    """

    name = "human_judgement"
    title = "Agreement with people"
    reads = JudgedCaptions
    needs_text = True
    headings: ClassVar = {"human_judgement/tau_c": "tau-c", "human_judgement/tau_b": "tau-b"}

    template: str = "A photo depicts {}"
    """The prompt that a caption becomes, with `{}` where it goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        with naming("template: "):
            check_templates([self.template])

    def chance(self, data: JudgedCaptions) -> Mapping[str, float]:
        return dict.fromkeys(self.headings, 0.0)

    def measure(self, model: Embedder, data: JudgedCaptions) -> Mapping[str, Judgements]:
        pairs = data.pairs
        captions = list(dict.fromkeys(pair.caption for pair in pairs))
        places = {caption: place for place, caption in enumerate(captions)}
        images = torch.tensor([pair.image for pair in pairs])
        texts = torch.tensor([places[pair.caption] for pair in pairs])
        images_of, texts_of = (
            model.embed_images(data.images),
            model.embed_texts([self.template.replace("{}", caption) for caption in captions]),
        )
        similarities = (images_of[images] * texts_of[texts]).sum(dim=1).clamp(min=0)  # as CLIPScore
        counts = torch.tensor([len(pair.judgements) for pair in pairs])
        found = Judgements(
            scores=similarities.repeat_interleave(counts),
            judgements=torch.tensor([float(one) for pair in pairs for one in pair.judgements]),
            images=images.repeat_interleave(counts),
        )
        return {self.name: found}
