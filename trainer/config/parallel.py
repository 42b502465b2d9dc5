"""Settings of how a client's model is spread over ranks: pipelines, and their microbatches.

The worker that carries them out is trainer/workers/pipeline.py.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.config.base import Only, Section, setting

PIPELINED = Only("pipeline", but=(1,), remedy="2")


class Parallel(Section):
    """A pipeline of ranks, each with one stage of the model, takes the place of a single rank."""

    implementation: ClassVar[str] = "trainer.workers.pipeline:Pipeline"
    effects: ClassVar[dict[str, Only]] = {
        "microbatches": PIPELINED,
        "schedule": PIPELINED,
        "split": PIPELINED,
        "layers": PIPELINED,
        "chunks": Only("schedule", ("interleaved",)),
    }
    pipeline: int = setting(
        1,
        help="S, ranks that share a model, one stage each; ranks must be a multiple of it. Each S "
        "of them are one replica, which trains clients as a single rank would",
        unit="ranks",
        ge=1,
        le=1000,
    )
    microbatches: int = setting(
        1,
        help="M, equal parts of a batch that follow each other through the stages; a batch that "
        "does not divide into M has as many as it can. With more of them a rank idles less, for "
        "(S - 1) / (M + S - 1) of a step, but each is smaller",
        unit="microbatches",
        ge=1,
        le=1000,
    )
    schedule: Literal["gpipe", "1f1b", "interleaved"] = setting(
        "gpipe",
        help="order of a rank's work. gpipe: all forward passes, then all backward; 1f1b: in turn, "
        "which keeps activations of at most S microbatches; interleaved: in turn, with several "
        "stages on each rank, which leaves it less idle and sends more",
    )
    split: Literal["parameters", "layers", "cost"] = setting(
        "parameters",
        help="stages are even by this, as far as layers allow: parameters, number of layers that "
        "have any, or the seconds of each layer's forward and backward pass, measured at the start "
        "on rank 0 and kept in checkpoints",
    )
    layers: tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...] | None = setting(
        None,
        help="number of layers of each stage, in order; empty: the cut is found by split",
        unit="layers",
        max_length=10_000,
    )
    chunks: int = setting(
        2, help="stages on each rank under interleaved", unit="stages", ge=2, le=1000
    )

    @property
    def stages(self) -> int:
        """Number of stages of the whole model."""
        return self.pipeline * (self.chunks if self.schedule == "interleaved" else 1)

    def idle(self, microbatches: int) -> float:
        """Share of a step in which a rank is idle if all stages take equally long.

        (S - 1) / (M + S - 1) (Huang et al., GPipe, NeurIPS 2019), with M counted once for each of
        a rank's stages (Narayanan et al., SC 2021).
        """
        waits = self.pipeline - 1
        return waits / (microbatches * self.stages // self.pipeline + waits)

    def fits(self, microbatches: int) -> bool:
        """Return whether the schedule takes so many microbatches, in rounds of equal length."""
        rounds = max(1, microbatches // self.pipeline)
        return self.schedule != "interleaved" or microbatches % rounds == 0

    @model_validator(mode="after")
    def _each_stage_has_its_layers(self) -> "Parallel":
        if self.layers is not None and len(self.layers) != self.stages:
            raise ValueError(
                f"layers: {len(self.layers)} numbers for {self.stages} stages; give one for each "
                "stage, or leave it empty"
            )
        return self

    @model_validator(mode="after")
    def _microbatches_fill_rounds(self) -> "Parallel":
        if not self.fits(self.microbatches):
            near = self.microbatches // self.pipeline * self.pipeline
            raise ValueError(
                f"microbatches: {self.microbatches} do not divide into rounds of at least "
                f"{self.pipeline}, which schedule=interleaved takes; set it to {near} or "
                f"{near + self.pipeline}"
            )
        return self
