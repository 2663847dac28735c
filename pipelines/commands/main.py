"""The command `vlp`: one file of this folder per command. Everything heavy is imported within them."""

import click

from pipelines.commands.conf import conf
from pipelines.commands.convert_set import convert_set
from pipelines.commands.data import data
from pipelines.commands.docfreq import docfreq
from pipelines.commands.doctor import doctor
from pipelines.commands.download import download
from pipelines.commands.evaluate import evaluate
from pipelines.commands.export import export
from pipelines.commands.fit_codes import fit_codes
from pipelines.commands.from_open_clip import from_open_clip
from pipelines.commands.group import Vlp
from pipelines.commands.jobs import jobs
from pipelines.commands.masks import masks
from pipelines.commands.plan import plan
from pipelines.commands.pretrain import pretrain
from pipelines.commands.print_config import print_config
from pipelines.commands.replay import replay
from pipelines.commands.report import report
from pipelines.commands.run import run
from pipelines.commands.runs import runs
from pipelines.commands.settings import settings
from pipelines.commands.submit import submit
from pipelines.commands.sweep import sweep
from pipelines.commands.ui import ui


@click.group(cls=Vlp, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="vlp")
def main() -> None:
    """Efficient vision-language pre-training on Ray.

    Start with `vlp run conf/pipeline/demo.yaml conf/machine/laptop.yaml`.
    """


for command in (
    run,
    download,
    docfreq,
    fit_codes,
    pretrain,
    evaluate,
    report,
    convert_set,
    export,
    sweep,
    print_config,
    settings,
    conf,
    from_open_clip,
    masks,
    ui,
    runs,
    plan,
    doctor,
    submit,
    jobs,
    replay,
    data,
):
    main.add_command(command)
