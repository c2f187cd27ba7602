import warnings

import pytest

from paddlemix.visualization import fonts


@pytest.fixture
def only_latin(monkeypatch):
    files = tuple(fonts._matplotlib_font())
    assert files
    monkeypatch.setattr(fonts, "font_files", lambda: files)


def shape(text, size=24):
    mask = fonts.font_for(text, size).getmask(text)
    return mask.size, bytes(mask)


def test_chinese_characters_are_drawn_and_not_replaced_by_one_placeholder():
    shapes = {shape(character) for character in "红蓝圆方猫"}
    assert len(shapes) == 5
    assert all(any(pixels) for _, pixels in shapes)


def test_chinese_is_drawn_in_the_simplified_chinese_face():
    assert fonts.font_for("直骨", 24).getname()[0].endswith(("SC", "Micro Hei", "Zen Hei"))


def test_a_font_with_all_characters_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fonts.font_for("red circle 红色的圆", 20)


def test_a_latin_font_misses_chinese_characters_and_nothing_else(only_latin):
    (path, index), *_ = fonts.font_files()
    font = fonts._load(path, index, 20)
    assert fonts.missing_characters(font, "cat 猫 dog 猫狗") == "猫狗"


def test_without_a_chinese_font_one_warning_names_the_characters_and_what_to_install(only_latin):
    with pytest.warns(UserWarning, match=r"'猫'.*noto-cjk") as caught:
        font = fonts.font_for("a 猫", 20)
    assert len(caught) == 1
    assert fonts.missing_characters(font, "a") == ""


def test_without_any_font_file_pillows_own_font_serves(monkeypatch):
    monkeypatch.setattr(fonts, "font_files", tuple)
    assert fonts.font_for("cat", 20).size == 20
    with pytest.warns(UserWarning, match="猫"):
        fonts.font_for("猫", 20)


def test_a_chinese_font_of_the_system_comes_first_and_one_of_matplotlib_last(monkeypatch, tmp_path):
    (tmp_path / "truetype" / "wqy").mkdir(parents=True)
    (tmp_path / "opentype").mkdir()
    microhei = tmp_path / "truetype" / "wqy" / "wqy-microhei.ttc"
    noto = tmp_path / "opentype" / "NotoSansCJK-Regular.ttc"
    for path in (microhei, noto, tmp_path / "Other.ttf"):
        path.touch()
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path), str(tmp_path / "missing")))
    fonts.font_files.cache_clear()
    try:
        files = fonts.font_files()
    finally:
        fonts.font_files.cache_clear()
    assert files[:2] == ((noto, 2), (microhei, 0))
    assert files[-1][0].name == "DejaVuSans.ttf"


def test_fonts_have_the_size_asked_for():
    assert fonts.font_for("cat", 13).size == 13
    assert fonts.font_for("猫", 57).size == 57
