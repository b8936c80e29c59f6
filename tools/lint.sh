#!/bin/bash
# Lints Go and the API: golangci-lint with .golangci.yml, buf with buf.yaml, and compatibility
# of the API with the last release. Runs all three before it fails.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
bin/golangci-lint run ./... || failed=1
bin/buf lint || failed=1
bin/buf format --diff --exit-code || failed=1

# Before the first release nothing is promised; a shallow clone knows no tags and checks nothing.
release=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
if [[ -n $release ]]; then
	bin/buf breaking --against ".git#tag=$release" || failed=1
fi
exit $failed
