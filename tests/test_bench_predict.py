"""`benchmarks.bench_predict --quick`: it runs, and says where the time goes."""

import json

from benchmarks.bench_predict import main


def test_the_benchmark_of_an_answer_runs_and_says_where_the_time_goes(tmp_path):
    result = main(["-o", str(tmp_path / "out"), "--quick"])
    assert json.loads((tmp_path / "out" / "predict.json").read_text()) == result
    (answer,) = result["one_answer"].values()
    assert answer["tiles"] > 1
    assert list(answer["seconds"]) == [
        "reading and preprocessing", "forward passes of the tiles alone", "network and blending",
        "network, blending and reading aspects", "finding lesions", "resampling and writing",
    ]  # fmt: skip
    assert all(seconds > 0 for seconds in answer["seconds"].values())
    assert (tmp_path / "out" / "staging_2" / "case.nii.gz").is_file()
