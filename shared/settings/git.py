"""Settings of the git service, and of the webhooks of repositories elsewhere."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode

from shared.settings.scms import Scm, read_scms
from shared.settings.serving import MEBIBYTE


class GitSettings(BaseSettings):
    """The part of `Settings` for hosted repositories and their clients, and for webhooks of others."""

    git_threads: int = Field(
        64,
        ge=8,
        le=512,
        description="Threads of `longshore git`: requests at the same time. Clones and pushes of callers use three quarters at most.",
    )
    git_fetches_per_key: int = Field(8, ge=1, description="Clones and fetches at the same time, per key.")
    git_pushes_per_key: int = Field(4, ge=1, description="Pushes at the same time, per key.")
    git_fetches_per_owner: int = Field(12, ge=1, description="Clones and fetches at the same time, per owner of keys.")
    git_pushes_per_owner: int = Field(
        6,
        ge=1,
        description="Pushes at the same time, per owner. With the fetches of an owner at most half of LONGSHORE_GIT_THREADS.",
    )
    git_owner_max_bytes: int = Field(
        8192 * MEBIBYTE,
        ge=0,
        description="Disk space of all hosted repositories of one owner, in bytes, above which pushes are refused; 0: no limit.",
    )

    rate_limit_source_webhooks: int = Field(
        600,
        ge=0,
        description="Webhooks of repositories elsewhere from one address per minute, in each API process; 0: no limit.",
    )
    rate_limit_algorithm_webhooks: int = Field(
        120,
        ge=0,
        description="Webhooks for one algorithm per minute, in each API process, half of them from one address; 0: no limit.",
    )

    scms: Annotated[tuple[Scm, ...], NoDecode] = Field(
        (),
        description="Source code management systems in which owners choose repositories (GET /v1/scms): a JSON array of objects "
        "with `id`, `provider` (github, gitlab, bitbucket, bitbucket-cloud), `name`, `enabled`, `urls` {web, api, ssh}.",
    )

    @field_validator("scms", mode="before")
    @classmethod
    def _read_scms(cls, value: object) -> object:
        return read_scms(value) if isinstance(value, str) else value

    @field_validator("git_pushes_per_owner")
    @classmethod
    def _leaves_threads(cls, value: int, info: ValidationInfo) -> int:
        threads, fetches = info.data.get("git_threads"), info.data.get("git_fetches_per_owner")
        if threads is not None and fetches is not None and value + fetches > threads // 2:
            raise ValueError(
                f"must be at most {threads // 2 - fetches}: with LONGSHORE_GIT_FETCHES_PER_OWNER, which is {fetches}, at most "
                f"half of LONGSHORE_GIT_THREADS, which is {threads}; else one owner can keep everybody from git"
            )
        return value
