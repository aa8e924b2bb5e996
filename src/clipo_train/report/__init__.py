"""A run, or several of them side by side, as one self-contained HTML page, and as tables for the terminal."""

from clipo_train.report.comparison import write_comparison
from clipo_train.report.page import completions_table, summary_table, write_report
from clipo_train.report.runs import load_metrics, notices

__all__ = ["completions_table", "load_metrics", "notices", "summary_table", "write_comparison", "write_report"]
