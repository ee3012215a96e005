"""Public data sets, in small hand-made files of exactly their layouts: what becomes of every row."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.cli import build_app
from recsys.errors import ConfigError, InputRefused
from recsys.events import validate
from recsys.events.adapters import FORMATS, SourceCount, import_events

T0 = 1_715_000_000_000
AT = datetime.fromtimestamp(T0 / 1000, UTC)

KUAILIVE = {
    "room.csv": [
        "p_date,live_id,live_type,streamer_id,start_timestamp,end_timestamp,live_content_category,live_name_id",
        f"2024-05-06,900,1,70,{T0},{T0 + 3_600_000},Shopping,11",
        f"2024-05-06,901,1,71,{T0},,Chat,12",
        f"2024-05-06,902,1,x,{T0},,Chat,12",
        "2024-05-06,903,1,71,,,Chat,12",
    ],
    "click.csv": [
        "user_id,live_id,streamer_id,timestamp,watch_live_time",
        f"5,900,70,{T0 + 60_000},30000",
        f"5,901,71,{T0 + 60_000},1000",
        f"6,900,70,{T0 + 90_000},",
        f"6,900,70,{T0 + 95_000},-4",
        f"6,900,70,{T0 + 95_000},soon",
        ",900,70,1,1",
        f"7,900,70,later,{T0}",
    ],
    "comment.csv": ["user_id,live_id,streamer_id,timestamp", f"5,900,70,{T0 + 61_000}"],
    "like.csv": ["user_id,live_id,streamer_id,timestamp", f"5,900,70,{T0 + 62_000}", f"6,900,70,{T0 + 93_000}"],
    "gift.csv": ["user_id,live_id,streamer_id,timestamp,gift_price", f"5,900,70,{T0 + 63_000},12", f"5,900,70,{T0},a"],
    "negative.csv": ["user_id,live_id,streamer_id,timestamp", f"6,901,71,{T0 + 50_000}"],
    "streamer.csv": [
        (
            "streamer_id,gender,age,country,device_brand,device_price,live_operation_tag,fans_user_num,"
            "fans_group_fans_num,follow_user_num,first_live_timestamp,accu_live_cnt,accu_live_duration,accu_play_cnt,"
            "accu_play_duration,reg_timestamp,onehot_feat0,onehot_feat1,onehot_feat2,onehot_feat3,onehot_feat4,"
            "onehot_feat5,onehot_feat6"
        ),
        f"70,F,30,CN,a,1,t,9999,99,9,{T0 - 5},8,8,8,8,{T0 - 86_400_000},0,0,0,0,0,0,0",
    ],
    "user.csv": [
        (
            "user_id,age,gender,country,device_brand,device_price,reg_timestamp,fans_num,follow_num,"
            "first_watch_live_timestamp,accu_watch_live_cnt,accu_watch_live_duration,is_live_streamer,is_photo_author,"
            "onehot_feat0,onehot_feat1,onehot_feat2,onehot_feat3,onehot_feat4,onehot_feat5,onehot_feat6"
        ),
        f"5,20,M,CN,a,1,{T0 - 86_400_000},3,4,{T0 - 9},7,7,0,0,0,0,0,0,0,0,0",
        "6,20,M,CN,a,1,,3,4,,7,7,0,0,0,0,0,0,0,0,0",
    ],
}
KUAIRAND_LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
KUAIRAND = {
    "data/log_standard_4_08_to_4_21_pure.csv": [
        KUAIRAND_LOG,
        f"0,10,20220408,400,{T0},1,1,1,0,0,0,1,20000,30000,0,0,1,0,1",
        f"0,11,20220408,400,{T0 + 60_000},0,0,0,0,0,1,0,500,30000,0,0,0,0,1",
        f"1,12,20220408,400,{T0},1,0,0,0,0,0,0,500,30000,0,0,0,0,1",
        f"1,10,20220408,400,{T0},2,0,0,0,0,0,0,500,30000,0,0,0,0,1",
    ],
    "data/log_random_4_22_to_5_08_pure.csv": [
        KUAIRAND_LOG,
        f"1,10,20220422,400,{T0},1,0,0,1,1,0,0,700,30000,0,0,0,1,1",
    ],
    "data/video_features_basic_pure.csv": ["video_id,author_id,video_type", "10,100,NORMAL", "11,101,AD"],
}
TWITCH = {
    "100k_a.csv": [
        "1,33842865744,mithrain,154,156",
        "1,33846768288,alptv,166,169",
        "2,33842865744,mithrain,155,160",
        "3,33842865744,mithrain,160,160",
        "3,,mithrain,1,2",
    ]
}
RETAIL_HEADER = ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country"]
RETAIL = [
    ["489434", "85048", "LIGHTS, 20", "12", "2009-12-01 07:45:00", "6.95", "13085", "United Kingdom"],
    ["489434", "79323P", "PINK", "2", "2009-12-01 07:45:00", "0.29", "13085", "United Kingdom"],
    ["489434", "79323W", "WHITE", "1", "2009-12-01 07:45:00", "6.75", "13085", "United Kingdom"],
    ["C489449", "79323P", "PINK", "-1", "2009-12-02 10:00:00", "0.29", "13085", "United Kingdom"],
    ["C489449", "85048", "LIGHTS, 20", "-2", "2009-12-02 10:00:00", "6.95", "13085", "United Kingdom"],
    ["C489450", "22000", "NEVER BOUGHT", "-1", "2009-12-02 11:00:00", "1.00", "13085", "United Kingdom"],
    ["489500", "POST", "POSTAGE", "1", "2009-12-02 11:00:00", "18.00", "13085", "France"],
    ["489501", "85048", "LIGHTS, 20", "1", "2009-12-02 11:00:00", "6.95", "", "France"],
    ["489502", "85048", "lost", "-3", "2009-12-02 11:00:00", "0", "13085", "France"],
    ["489503", "85048", "LIGHTS, 20", "one", "2009-12-02 11:00:00", "6.95", "13085", "France"],
]


def lay(folder: Path, files: dict[str, list[str]]) -> Path:
    for name, lines in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    return folder


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / name / "*.parquet")


def retail_csv(folder: Path) -> Path:
    quoted = [RETAIL_HEADER, *([*row[:2], f'"{row[2]}"', *row[3:]] for row in RETAIL)]
    return lay(folder, {"online_retail_II.csv": [",".join(row) for row in quoted]})


def retail_book(folder: Path) -> Path:
    """A workbook as spreadsheet programs write it: shared texts, dates as serial numbers, one header per sheet."""
    shared: list[str] = []

    def cell(column: int, row: int, value: str) -> str:
        name = f"{chr(ord('A') + column)}{row}"
        if not value:
            return ""
        if column == 4 and row > 1:
            days = (datetime.fromisoformat(value) - datetime(1899, 12, 30)) / timedelta(days=1)
            return f'<c r="{name}" s="1"><v>{days!r}</v></c>'
        if column in (3, 5, 6) and value.lstrip("-").replace(".", "").isdigit():
            return f'<c r="{name}"><v>{value}</v></c>'
        shared.append(value)
        return f'<c r="{name}" t="s"><v>{len(shared) - 1}</v></c>'

    def sheet(rows: list[list[str]]) -> str:
        lines = [
            f'<row r="{i}">{"".join(cell(column, i, value) for column, value in enumerate(row))}</row>'
            for i, row in enumerate([RETAIL_HEADER, *rows], start=1)
        ]
        return f'<worksheet xmlns="{MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>'

    MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "online_retail_II.xlsx", "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", sheet(RETAIL[:3]))
        book.writestr("xl/worksheets/sheet2.xml", sheet(RETAIL[3:]))
        texts = "".join(f"<si><t>{text}</t></si>" for text in shared)
        book.writestr("xl/sharedStrings.xml", f'<sst xmlns="{MAIN}">{texts}</sst>')
    return folder


def test_kuailive(tmp_path: Path) -> None:
    out = tmp_path / "events"
    report = import_events("kuailive", lay(tmp_path / "src", KUAILIVE), out)
    assert report.files["click.csv"] == SourceCount(
        7, 3, {"unreadable_id": 1, "unreadable_time": 1, "unreadable_duration": 1, "negative_duration": 1}
    )
    assert report.files["room.csv"] == SourceCount(4, 2, {"unreadable_id": 1, "unreadable_time": 1})
    assert report.files["gift.csv"] == SourceCount(2, 1, {"unreadable_amount": 1})
    rooms = table(out, "rooms").sort("room_id")
    assert rooms.rows() == [
        (900, 70, AT, AT + timedelta(hours=1), "Shopping"),
        (901, 71, AT, None, "Chat"),
    ]
    watches = table(out, "watches").sort("user_id", "room_id")
    assert watches["left_at"].to_list() == [AT + timedelta(seconds=90), AT + timedelta(seconds=61), None]
    assert watches["entered_at"].n_unique() == 2  # two clicks at one instant stay two rows
    kinds = table(out, "engagements")
    assert sorted(kinds["kind"].to_list()) == ["comment", "gift", "like", "like"]
    assert kinds.filter(pl.col("kind") == "gift")["value_minor"].to_list() == [12]
    assert table(out, "impressions").select("user_id", "room_id", "host_id", "position").rows() == [(6, 901, 71, 0)]
    assert table(out, "hosts").columns == ["host_id", "registered_at"]  # counts at the end of the window stay out
    assert table(out, "users").rows() == [(5, AT - timedelta(days=1)), (6, None)]


def test_kuairand(tmp_path: Path) -> None:
    out = tmp_path / "events"
    report = import_events("kuairand", lay(tmp_path / "src", KUAIRAND), out)
    assert report.files["log_standard_4_08_to_4_21_pure.csv"] == SourceCount(
        4, 2, {"unreadable_mark": 1, "unknown_author": 1}
    )
    end = AT + timedelta(seconds=20)
    assert table(out, "watches").sort("user_id")["left_at"].to_list() == [end, AT + timedelta(milliseconds=700)]
    assert table(out, "follows").rows() == [(0, 100, end, "follow")]
    assert table(out, "feedback").select("user_id", "host_id", "kind").rows() == [(0, 101, "not_interested")]
    assert sorted(table(out, "engagements")["kind"].to_list()) == ["comment", "like", "profile_enter", "share"]
    assert table(out, "impressions").sort("user_id", "room_id")["slot"].to_list() == [None, None, "random"]
    assert not (out / "rooms").exists()


def test_twitch(tmp_path: Path) -> None:
    out = tmp_path / "events"
    report = import_events("twitch-100k", lay(tmp_path / "src", TWITCH), out)
    assert report.files["100k_a.csv"] == SourceCount(5, 3, {"unreadable_id": 1, "stop_not_after_start": 1})
    watches = table(out, "watches").filter(pl.col("user_id") == 1).sort("entered_at")
    origin = datetime(2020, 1, 1, tzinfo=UTC)
    step, second = timedelta(minutes=10), timedelta(seconds=1)
    assert watches["entered_at"].to_list() == [origin + 154 * step, origin + 166 * step]
    rooms = table(out, "rooms").sort("started_at")
    assert rooms.rows()[0] == (33842865744, "mithrain", origin + 154 * step - second, origin + 160 * step - second)


@pytest.mark.parametrize("lay_retail", [retail_csv, retail_book])
def test_online_retail(tmp_path: Path, lay_retail: object) -> None:
    out = tmp_path / "events"
    report = import_events("online-retail", lay_retail(tmp_path / "src"), out)
    (name,) = (name for name in report.files if "cancel" not in name)
    assert report.files[name].rows == 10
    assert report.files[name].quarantined == {
        "no_customer": 1, "not_goods": 1, "unreadable_amount": 1, "negative_quantity": 1,
    }  # fmt: skip
    purchases = table(out, "purchases").sort("line")
    assert purchases["host_id"].to_list() == ["85048", "79323", "79323"]
    assert purchases["amount_minor"].to_list() == [8340, 58, 675]
    assert purchases["at"][0] == datetime(2009, 12, 1, 7, 45, tzinfo=UTC)
    refunds = table(out, "refunds").sort("order_id", "host_id")
    assert refunds.select("order_id", "host_id", "amount_minor").rows() == [
        ("489434", "79323", 29), ("489434", "85048", 1390), ("C489450", "22000", 100),
    ]  # fmt: skip
    assert refunds["at"].n_unique() == 3
    assert report.notes == {"cancellations_without_order": 1}


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_what_is_written_validates(tmp_path: Path, form: str) -> None:
    files = {"kuailive": KUAILIVE, "kuairand": KUAIRAND, "twitch-100k": TWITCH}.get(form)
    src = retail_csv(tmp_path / "src") if files is None else lay(tmp_path / "src", files)
    report = import_events(form, src, tmp_path / "events")
    quality = validate(tmp_path / "events", now=datetime(2026, 1, 1, tzinfo=UTC))
    assert {name: table.rows for name, table in quality.tables.items()} == {
        name: n for name, n in report.tables.items() if n or name in quality.tables
    }
    assert all(not table.quarantined for table in quality.tables.values())
    assert quality.unknown_files == [] and quality.unused_columns == {}


@pytest.mark.parametrize(
    ("form", "files"),
    [
        ("kuailive", {"room.csv": KUAILIVE["room.csv"]}),
        ("kuailive", KUAILIVE | {"click.csv": ["user_id,live_id", "1,2"]}),
        ("kuailive", KUAILIVE | {"click.csv": []}),
        ("kuairand", {"x/log_standard_1.csv": [KUAIRAND_LOG]}),
        ("twitch-100k", {"other.csv": ["1"]}),
        ("online-retail", {"online_retail_II.xlsx": ["not a workbook"]}),
    ],
)
def test_a_broken_data_set_is_refused_and_nothing_is_written(
    tmp_path: Path, form: str, files: dict[str, list[str]]
) -> None:
    with pytest.raises(InputRefused):
        import_events(form, lay(tmp_path / "src", files), tmp_path / "events")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


def test_unknown_format_and_full_folder(tmp_path: Path) -> None:
    src = lay(tmp_path / "src", TWITCH)
    with pytest.raises(ConfigError, match="online-retail"):
        import_events("parler", src, tmp_path / "events")
    with pytest.raises(InputRefused, match="not empty"):
        import_events("twitch-100k", src, src)


def test_command(tmp_path: Path) -> None:
    src = lay(tmp_path / "src", TWITCH)
    done = CliRunner().invoke(build_app(), ["import", "twitch-100k", str(src), "--out", str(tmp_path / "e"), "--json"])
    assert done.exit_code == 0, done.output
    assert orjson.loads(done.stdout)["tables"] == {"watches": 3, "rooms": 2}
    again = CliRunner().invoke(build_app(), ["import", "twitch-100k", str(src), "--out", str(tmp_path / "e")])
    assert again.exit_code == 3
