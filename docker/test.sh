#!/usr/bin/env bash
# Checks the files of docker/, builds the image, and runs what a container of each role runs; says what it could not do.
# Needs one of docker, podman or buildah. BASE names another base image, such as one that is on this machine already;
# BUILD_OPTIONS is given to the build, such as `--pull=never --volume /etc/ssl/certs:/certs:ro`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

done_=() failed=() left=()
check() { # name, command...
    local name="$1"
    shift
    echo "[docker-test] $name"
    if "$@"; then done_+=("$name"); else failed+=("$name"); fi
}

check "linters, specifications and schemas" .venv/bin/pytest -q tests/docker -m "not slow"
check "the script for Slurm" .venv/bin/pytest -q tests/docker/test_slurm.py
if command -v npx > /dev/null; then
    check "compose files" npx --yes dclint -c docker/dclint.json docker/compose.yaml docker/compose.gpu.yaml
else
    left+=("compose files by dclint: npx is not installed")
fi

engine=""
for name in docker podman buildah; do
    if command -v "$name" > /dev/null && { [ "$name" != docker ] || docker info > /dev/null 2>&1; }; then
        engine="$name"
        break
    fi
done
build() {
    local options=()
    [ -n "${BASE:-}" ] && options+=(--build-arg "BASE=$BASE")
    [ "$engine" = buildah ] && options+=(--format docker --isolation chroot --network host)
    # shellcheck disable=SC2086 # several options
    "$engine" build "${options[@]}" ${BUILD_OPTIONS:-} -f docker/Dockerfile -t vlp .
}
run() { # command...: in a container of the image
    if [ "$engine" = buildah ]; then
        local container code
        container="$(buildah from --pull-never vlp)"
        buildah run --isolation chroot --network host --user 1000 "$container" -- "$@"
        code="$?"
        buildah rm "$container" > /dev/null
        return "$code"
    fi
    "$engine" run --rm --network host vlp "$@"
}
pipeline() {
    run vlp run conf/pipeline/demo.yaml machine.num_workers=0 machine.data_workers=0 machine.storage=/tmp/results \
        corpus.num_train=200 corpus.num_heldout=20 common.training.length.steps=4 common.lr_schedule.warmup_steps=1
}
node() { # a head and a worker, and a job with a token
    # shellcheck disable=SC2016 # the container's shell expands it
    run sh -c '
        export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef
        address=127.0.0.1:26379
        ray start --head --block --port=26379 --dashboard-port=28265 --num-cpus=0 --disable-usage-stats > /tmp/head 2>&1 &
        head=$!
        for _ in $(seq 60); do ray health-check --address=$address 2> /dev/null && break; sleep 1; done
        ray start --block --address=$address --num-cpus=1 --disable-usage-stats > /tmp/worker 2>&1 &
        worker=$!
        vlp submit --address http://127.0.0.1:28265 settings mask.cluster
        code=$?
        kill $worker $head # and nothing else: without an engine of containers, processes of the machine are seen
        wait
        [ "$code" = 0 ] || cat /tmp/head /tmp/worker
        exit "$code"'
}
server() {
    # shellcheck disable=SC2016
    run sh -c '
        mlflow server --backend-store-uri sqlite:////tmp/mlflow.db --host 127.0.0.1 --port 25000 --workers 1 > /tmp/log 2>&1 &
        for _ in $(seq 60); do wget -q -O - http://127.0.0.1:25000/health && kill $! && exit 0; sleep 1; done
        cat /tmp/log; exit 1'
}

if [ -z "$engine" ]; then
    left+=("the image: none of docker, podman and buildah is here")
else
    check "the image, by $engine" build
    check "the command line" run vlp --help
    check "a pipeline" pipeline
    check "a head, a worker and a job" node
    check "MLflow's server" server
    if [ "$engine" = docker ]; then
        left+=("docker compose up: start it by the lines at the head of docker/compose.yaml")
    else
        left+=("docker compose up: docker is not here")
    fi
fi
left+=("Kubernetes: no cluster is asked" "Slurm: srun and scontrol were stand-ins" "GPUs")

printf '[docker-test] good: %s\n' "${done_[@]}"
printf '[docker-test] not done: %s\n' "${left[@]}"
if [ "${#failed[@]}" -gt 0 ]; then
    printf '[docker-test] BAD: %s\n' "${failed[@]}"
    exit 1
fi
