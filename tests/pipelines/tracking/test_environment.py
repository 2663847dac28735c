from pipelines.tracking.environment import environment_lock, environment_tags


def test_the_environment_is_described():
    tags = environment_tags()
    assert {"mlflow.source.name", "python_version", "torch_version", "ray_version", "host"} <= tags.keys()
    lines = environment_lock().splitlines()
    assert f"ray=={tags['ray_version']}" in lines
    assert lines == sorted(set(lines))
