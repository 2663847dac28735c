"""What the stages of a pipeline made, by which two runs of it are compared."""

from vlp.shards.storage.folder import Folder


def digests(made: Folder) -> dict[str, str]:
    """Of what does not depend on the time, of each stage that is done, by its folder in the pipeline's."""
    stages = {f"{kind}/{name}" for kind in ("pretrain", "evaluate") for name in (made / kind).folders()}
    stages |= {name for name in made.folders() if name.startswith(("download-", "docfreq-"))}
    done = [stage for stage in stages if "done.json" in (made / stage).names()]
    return {stage: (made / stage).read_json("done.json")["digest"] for stage in done}
