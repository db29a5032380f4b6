"""What is said of codecs whose records are known."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from services.evaluation.comparison import Comparison, factor, kilobytes, level, score, short_name
from services.evaluation.summary import print_summary
from tests.services.evaluation.records import RECORDS, UNSPLIT, coded


def ranking(records, codec):
    return next(one for one in Comparison(records).rankings if one.codec == codec)


class TestRankings:
    def test_what_a_codec_needs(self):
        """jpeg: .86 is 3/8, .90 is 5/8 and .95 is 15/16 of the way from 40 to 160 kB, which is a factor of 4."""
        needs = ranking(RECORDS, "jpeg").needs
        assert [need.kb for need in needs] == [pytest.approx(40 * 4 ** (x / 16)) for x in (6, 10, 15)]
        assert not any(need.less for need in needs)

    def test_what_it_does_not_reach_and_what_is_less_than_its_cheapest_setting(self):
        needs = ranking(RECORDS, "x264").needs
        assert [str(need) for need in needs] == ["< 30.0", "< 30.0", "no"]

    def test_ratios_are_the_references_bytes_over_the_others(self):
        assert Comparison(RECORDS).reference == "rle"
        assert ranking(RECORDS, "rle").ratio is None
        ratio = ranking(RECORDS, "jpeg").ratio
        assert (ratio.low, ratio.high) == (0.80, 0.96)
        assert 1 < ratio.ratio < 3
        assert ranking(RECORDS, "jpeg").ratio50 is None

    def test_the_feature_codec_is_the_reference_where_it_is(self):
        records = [*RECORDS, coded("feature:quality=1", 5, 0.8), coded("feature:quality=9", 20, 0.96)]
        assert Comparison(records).reference == "feature"
        assert ranking(records, "jpeg").ratio.ratio == pytest.approx(1 / 8)

    def test_ap50_is_compared_in_its_own_range(self):
        records = [
            UNSPLIT,
            *(coded(f"rle:bits={n}", 10 * n, n / 10, agreement50=0.9 + n / 100) for n in (1, 9)),
            *(coded(f"jpeg:quality={n}", 20 * n, n / 10, agreement50=0.9 + n / 100) for n in (1, 9)),
        ]
        found = ranking(records, "jpeg")
        assert found.ratio.ratio == found.ratio50.ratio == pytest.approx(0.5)
        assert (found.ratio50.low, found.ratio50.high) == (0.91, 0.99)


class TestSentences:
    def test_the_conclusion(self):
        first, mean, loss = Comparison(RECORDS).sentences()
        assert first == (
            "At an agreement of .95 a frame needs: jpeg 147 kB, rle 155 kB. Not reached by x264 (.940 at best)."
        )
        assert mean.startswith(
            "Bytes of rle over those of the others at equal agreement, in the mean from .70"
        )
        assert "jpeg 1." in mean
        assert loss == (
            "mAP stays within 3% of the unsplit network's .400 from these settings on: "
            "rle bits=3 (120 kB), jpeg quality=98 (160 kB). Not even at their finest: x264."
        )

    def test_a_level_that_only_one_reaches_is_no_comparison(self):
        first = Comparison(RECORDS[:1] + RECORDS[3:]).sentences()[0]
        assert first.startswith("At an agreement of .90 a frame needs: x264 < 30.0 kB, rle 120 kB")

    def test_a_setting_counts_for_map_only_if_no_dearer_one_fails(self):
        records = [UNSPLIT, coded("jpeg:quality=1", 1, 0.8, 0.4), coded("jpeg:quality=2", 2, 0.9, 0.2)]
        assert (
            Comparison(records).sentences()[-1].endswith("settings on: none. Not even at their finest: jpeg.")
        )

    def test_without_labels_nothing_is_said_of_map(self):
        records = [replace(record, map=None, data=None, clip="a.mp4") for record in RECORDS]
        assert len(Comparison(records).sentences()) == 2

    def test_without_objects_there_is_nothing_to_say(self):
        records = [replace(record, map=None, agreement=None, objects=0) for record in RECORDS]
        assert Comparison(records).sentences() == []
        assert [str(need) for need in Comparison(records).rankings[0].needs] == ["no"] * 3

    def test_without_codecs_there_is_nothing_to_say(self):
        assert Comparison([UNSPLIT]).sentences() == []

    def test_one_codec_alone(self):
        (first, _) = Comparison([UNSPLIT, *RECORDS[1:3]]).sentences()
        assert first == "At an agreement of .95 a frame needs: jpeg 147 kB."


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (kilobytes(1234.5), "1234"),
        (kilobytes(99.96), "100"),
        (kilobytes(99.94), "99.9"),
        (kilobytes(9.994), "9.99"),
        (factor(0.35), ".35"),
        (factor(1.05), "1.05"),
        (factor(14.23), "14.2"),
        (score(0.9), ".900"),
        (score(1.0), "1.000"),
        (level(0.9), ".90"),
    ],
)
def test_figures_are_short(written, text):
    assert written == text


def test_a_short_name_leaves_out_what_all_settings_share():
    assert short_name(RECORDS[3], RECORDS) == "rle bits=3"
    assert short_name(RECORDS[3], RECORDS[3:4]) == "rle bits=3 temporal=false"


def test_the_summary_says_it_all():
    out = io.StringIO()
    print_summary(RECORDS, [], Console(file=out, width=120))
    text = out.getvalue()
    assert "street: 9 frames, 100 confident detections" in text
    assert "jpeg quality=98" in text
    assert "Ratio: bytes of rle over those of the codec" in text
    assert "may be chance" not in text
    assert "At an agreement of .95 a frame needs: jpeg 147 kB" in text


@pytest.mark.parametrize(("objects", "told"), [(0, "0 confident detections"), (1, "1 confident detection")])
def test_the_summary_warns_of_few_objects(objects, told):
    out = io.StringIO()
    print_summary([replace(record, objects=objects) for record in RECORDS], [], Console(file=out, width=120))
    assert f"With {told} differences may be chance" in " ".join(out.getvalue().split())
