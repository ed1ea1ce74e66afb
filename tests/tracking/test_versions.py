from realignment.tracking.versions import find_newest_version


def test_the_newest_version_of_an_entry_is_found(tmp_path):
    entry = tmp_path / "pairs.parquet"
    for version in ("2026-01-02T00.00.00.000Z", "2025-12-31T00.00.00.000Z"):
        (entry / version).mkdir(parents=True)
        (entry / version / entry.name).touch()
    assert find_newest_version(entry) == entry / "2026-01-02T00.00.00.000Z" / entry.name


def test_a_file_a_folder_without_versions_and_a_path_that_is_not_there_are_returned_as_they_are(tmp_path):
    file = tmp_path / "pairs.parquet"
    file.touch()
    for path in (file, tmp_path, tmp_path / "absent"):
        assert find_newest_version(path) == path
