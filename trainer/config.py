"""The table `[trainer]` of demur.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from fallback.errors import ConfigError
from fallback.tables import Table
from gateway.config import GatewaySettings

if TYPE_CHECKING:
    from fallback.config import Config


class TrainerSettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the trainer waits for, how much it takes, and what the gate lets through."""

    gateway: Annotated[
        str, Meta(description="host:port of the gateway to publish to; empty: the running stack's, or [gateway]'s own")
    ] = ""
    device: Annotated[
        Literal["auto", "cuda", "cpu"], Meta(description="what the trainer runs models on to get their features")
    ] = "cpu"
    poll_seconds: Annotated[
        float, Meta(gt=0, le=600, description="pause between two looks for new outcomes, seconds")
    ] = 0.5
    backoff_seconds_max: Annotated[
        float, Meta(gt=0, le=3600, description="longest pause while Redis or the gateway is away, seconds")
    ] = 30.0
    ledger_batch_rows_max: Annotated[
        int, Meta(ge=1, le=1_000, description="most outcomes in one commit of the ledger, rows")
    ] = 500
    ledger_files_max: Annotated[
        int, Meta(ge=2, le=10_000, description="files of the ledger before small ones are merged, files")
    ] = 64
    outcomes_keep_seconds: Annotated[
        float,
        Meta(
            ge=0, le=31_536_000, description="how long outcomes stay in Redis for watchers once in the ledger, seconds"
        ),
    ] = 3600.0
    retrain_after_reviews: Annotated[
        int, Meta(ge=1, le=10_000_000, description="new labels by people before a model is trained again, labels")
    ] = 100
    holdout_share: Annotated[
        float, Meta(gt=0, lt=1, description="share of labelled inputs kept out of training to judge by, in (0, 1)")
    ] = 0.2
    examples_max: Annotated[
        int, Meta(ge=1, le=10_000_000, description="newest labelled inputs that one training reads, examples")
    ] = 100_000
    replay_examples_max: Annotated[
        int, Meta(ge=0, le=10_000_000, description="older examples among those trained on, examples")
    ] = 50_000
    import_examples_max: Annotated[
        int, Meta(ge=1, le=10_000_000, description="most examples in one imported file, examples")
    ] = 100_000
    regularisation: Annotated[
        float, Meta(gt=0, le=1e9, description="how much the old weights count against new labels, in examples")
    ] = 0.02
    correction_weight: Annotated[
        float, Meta(gt=0, le=1000, description="weight of a new label beside 1 for a replayed example")
    ] = 1.0
    class_weights: Annotated[
        Literal["none", "balanced"], Meta(description="balanced: rare labels count as much as frequent ones")
    ] = "none"
    iterations_max: Annotated[int, Meta(ge=1, le=100_000, description="most steps of the optimiser, iterations")] = 500
    parity_tolerance: Annotated[
        float, Meta(gt=0, lt=1, description="largest difference of a probability between export and training")
    ] = 1e-3
    gate_holdout_min: Annotated[
        int,
        Meta(ge=1, le=10_000_000, description="fewest held-out examples that a new version can be judged by, examples"),
    ] = 30
    gate_accuracy_drop_max: Annotated[
        float, Meta(ge=0, lt=1, description="drop of accuracy on the hold-out that is let through, share")
    ] = 0.005
    gate_recall_drop_max: Annotated[
        float,
        Meta(ge=0, lt=1, description="drop of one label's recall that is let through even if it is no chance, share"),
    ] = 0.02
    gate_error_rise_max: Annotated[
        float,
        Meta(ge=0, lt=1, description="rise of the error among automatic answers that is let through, share"),
    ] = 0.005
    gate_significance: Annotated[
        float,
        Meta(gt=0, lt=0.5, description="probability below which a drop is no longer taken for chance (sign test)"),
    ] = 0.05
    shadow_days_max: Annotated[
        float,
        Meta(gt=0, le=3_650, description="how long a retrained version may take to be proved in shadow, days"),
    ] = 14.0
    survey_requests: Annotated[
        int,
        Meta(ge=20, le=2_000, description="scores of a version before the thresholds to prove are chosen, requests"),
    ] = 200
    lost_seconds: Annotated[
        float,
        Meta(ge=60, le=604_800, description="silence after which a gateway's unclosed seconds are left out, seconds"),
    ] = 3_600.0

    def check(self, config: Config) -> None:
        """Raise ConfigError where a gateway would go on under its name after the certifier gave it up."""
        rejoin = config.table("gateway", GatewaySettings).rejoin_seconds
        if rejoin >= self.lost_seconds:
            raise ConfigError(
                f"gateway.rejoin_seconds: expected less than trainer.lost_seconds ({self.lost_seconds:g}), "
                f"got {rejoin:g}"
            )
