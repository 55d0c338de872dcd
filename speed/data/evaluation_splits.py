"""Which split of a task published scores are measured on: test where there is one, as in mteb's benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

SEVERAL: dict[str, tuple[str, ...]] = {
    "AmazonCounterfactualClassification": ("validation", "test"),
    "AmazonReviewsClassification": ("validation", "test"),
    "ChemHotpotQARetrieval": ("train", "dev", "test"),
    "LoTTE": ("test", "dev"),
    "MLQARetrieval": ("validation", "test"),
    "MLQuestions": ("dev", "test"),
    "MSMARCOv2": ("train", "dev", "dev2"),
    "MTOPDomainClassification": ("validation", "test"),
    "MTOPIntentClassification": ("validation", "test"),
    "MassiveIntentClassification": ("validation", "test"),
    "MassiveScenarioClassification": ("validation", "test"),
    "MultiLongDocRetrieval": ("dev", "test"),
    "OpusparcusPC": ("test.full", "validation.full"),
    "PawsXPairClassification": ("test", "validation"),
    "PoemSentimentClassification.v2": ("validation", "test"),
    "STSBenchmark.v2": ("validation", "test"),
    "STSBenchmarkMultilingualSTS": ("dev", "test"),
    "StatcanDialogueDatasetRetrieval": ("dev", "test"),
    "WebLINXCandidatesReranking": ("validation", "test_iid", "test_cat", "test_geo", "test_vis", "test_web"),
    "XGlueWPRReranking": ("validation", "test"),
    "XNLI": ("test", "validation"),
}
"""English text tasks of mteb whose own order of splits is not the one of published scores. Before 0.2.0 they were
evaluated on the first of these (from a folder) or on all (from the hub)."""


def published_splits(splits: Sequence[str]) -> list[str]:
    """The splits of published scores among mteb's: test; else all kinds of test; else all that are no training data."""
    tests = ["test"] if "test" in splits else [split for split in splits if split.startswith("test")]
    return tests or [split for split in splits if split != "train"] or list(splits)


def of_published_scores(task: str) -> str:
    """The split of the published scores of a task of MTEB(eng, v1) or v2."""
    return "dev" if task == "MSMARCO" else "test"
