"""How the far sides are reached, as an argument, so that nothing but the edge reads the environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from pagoda_engine.source.web import Patience


@dataclass(frozen=True, slots=True)
class Access:
    """Where models come from and who asks. None means what the user's environment says.

    `hub` is a hub's URL (HF_ENDPOINT), `token` its token (HF_TOKEN, or huggingface_hub's token file), `index` a package
    index's URL (PIP_INDEX_URL).
    """

    hub: str | None = None
    token: str | None = field(default=None, repr=False)
    index: str | None = None
    patience: Patience = field(default_factory=Patience)
