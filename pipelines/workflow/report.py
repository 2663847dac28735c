"""The last stage of a pipeline: its methods side by side."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from pipelines.config.identity import fingerprint
from pipelines.reports.comparison import Comparison
from pipelines.reports.measured import Measured
from pipelines.reports.page import comparison_chart, report_sections, write_page
from vlp.shards.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class ReportManifest(Manifest):
    """The manifest of a report."""


def write_report(
    comparison: Comparison, measured: Sequence[Measured], masks: Image.Image, output: Path
) -> ReportManifest:
    """Write the page, a picture of the table, and the masks on the same images; returns a manifest."""
    masks.save(output / "masks.png")
    comparison_chart(comparison).save(output / "report.png")
    write_page(output, comparison, report_sections(comparison, measured))
    manifest = ReportManifest(digest=fingerprint([asdict(row) for row in comparison.rows]))
    manifest.write(output)
    return manifest
