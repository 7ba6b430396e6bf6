"""Its result is a link to somebody else's file."""

from tests.misbehaving import behaves


def run(stage):
    (stage.output_folder / "out.json").symlink_to("/etc/passwd")
    return behaves.result()
