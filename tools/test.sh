#!/bin/bash
# Runs groups of tests, all of them to the end, and says which failed and what each took.
#
#   tools/test.sh [--setup] all|GROUP[,GROUP...]
#
# --setup first installs what the groups need (tools/setup.sh) and builds the tools into bin/.
# Every Go package belongs to one group: "unit" runs those that no other row claims. The last
# line of the output is the test runner's own summary of all groups that ran Go tests.
#
# HOTSPARE_CI=1 (set here when CI=true) makes a skipped test of a real part a failure. Outside
# CI it is only counted, so that a laptop without libvirt can run the rest.
set -euo pipefail
cd "$(dirname "$0")/.."

# To add a group of tests: one line here, and one in tools/setup.sh if it needs new packages.
#
#   kind  go:    Go tests that need nothing from the machine
#         real:  Go tests of real parts: never from the test cache, no skip in CI
#         again: like go, for packages that also run in their own group, with other flags
#         run:   a command; its exit status counts
#   setup       package groups of tools/setup.sh, separated by spaces
#   what        Go tests: NAME=value settings, `go test` flags and package patterns;
#               REST stands for the packages that no other row claims
#               run: the command
table() {
	cat <<'TABLE'
unit    | go   | base | -vet=all -timeout=2m REST
sim     | again | base | -count=1 -timeout=5m ./internal/simulation -cycles=600
libvirt | real  | base libvirt | -p=1 -timeout=12m ./internal/hypervisor/libvirt/... ./internal/fence/libvirt/...
storage | real  | base libvirt | -p=1 -timeout=8m ./internal/storage/qcow2/... ./internal/storage/mirror/...
network | real  | base network | -p=1 -timeout=5m ./internal/sdn/bridge/... ./internal/sdn/dns/...
lab     | real  | base libvirt network monitoring | -p=1 -timeout=8m ./e2e/guest/... ./e2e/lab/...
e2e     | real  | base libvirt network monitoring | -p=1 -timeout=15m ./e2e
systemd | real  | base systemd | -timeout=2m ./deploy/...
cluster | go   | base | -timeout=10m ./internal/clustertest/...
verify  | run  | base | make --no-print-directory verify
lint    | run  | base | make --no-print-directory lint
TABLE
}

# The random tests draw their seeds from the commit: each commit tries new ones, and has one verdict
# however often it is tested. HOTSPARE_SEED=... repeats another's; `make sim` and `make soak` draw freshly.
HOTSPARE_SEED=${HOTSPARE_SEED:-$((16#$(git rev-parse --short=12 HEAD 2>/dev/null || echo 1)))}
export HOTSPARE_SEED
export RAPID_SEED=$HOTSPARE_SEED # What pgregory.net/rapid reads; 0 would be a fresh one.

# The longest a group may take before it is killed: more means that something hangs, as no
# group may be planned longer than a third of it (docs/ci-budget.md).
readonly GROUP_LIMIT=30m
# Here each group leaves its test events, and `make test` its summary.
readonly RESULTS=build/test

say() { printf '%s\n' "$*" >&2; }

field() { # group number: one field of the table, without the blanks around it
	table | awk -F'[ \t]*[|][ \t]*' -v group="$1" -v number="$2" \
		'$1 == group { print $number; found = 1 } END { exit !found }'
}

all_groups() { table | awk '{ print $1 }'; }

# patterns prints the package patterns among the words of a row.
patterns() { # words
	local word
	for word in "$@"; do
		[[ $word == ./* ]] && printf '%s\n' "$word"
	done
	return 0
}

# unclaimed prints the packages that no row of kind go or real names.
unclaimed() {
	local group kind what claimed=()
	for group in $(all_groups); do
		kind=$(field "$group" 2)
		what=$(field "$group" 4)
		# shellcheck disable=SC2086 # the words of the row
		[[ $kind == run || $kind == again ]] || mapfile -t -O "${#claimed[@]}" claimed < <(patterns $what)
	done
	if ((${#claimed[@]} == 0)); then
		go list ./...
		return
	fi
	go list ./... | grep -vxFf <(go list "${claimed[@]}")
}

run_go() { # group kind words
	local group=$1 kind=$2 word packages settings=() args=()
	shift 2
	for word in "$@"; do
		case $word in
		REST)
			packages=$(unclaimed) || return 1
			# shellcheck disable=SC2206 # one word for each package
			args+=($packages)
			;;
		[A-Z]*=*) settings+=("$word") ;;
		*) args+=("$word") ;;
		esac
	done
	[[ $kind == real ]] && args=(-count=1 "${args[@]}")
	timeout --kill-after=30s "$GROUP_LIMIT" env "${settings[@]}" bin/gotestsum \
		--format=pkgname --format-hide-empty-pkg --jsonfile="$RESULTS/$group.json" -- "${args[@]}" &&
		judge "$group" "$kind"
}

# judge fails a group that ran nothing, and in CI a group of real parts that skipped something.
judge() { # group kind
	local skipped
	if ! grep -q '"Action":"run"' "$RESULTS/$1.json"; then
		say "$1: ran no test at all"
		return 1
	fi
	skipped=$(grep '"Action":"skip"' "$RESULTS/$1.json" | grep -o '"Package":"[^"]*","Test":"[^"]*"' || true)
	if [[ $2 == real && ${HOTSPARE_CI:-} == 1 && -n $skipped ]]; then
		say "$1: in CI no test of a real part may be skipped:"
		say "$skipped"
		return 1
	fi
}

run_group() { # group
	local kind what words
	kind=$(field "$1" 2)
	what=$(field "$1" 4)
	read -ra words <<<"$what"
	if [[ $kind == run ]]; then
		timeout --kill-after=30s "$GROUP_LIMIT" "${words[@]}"
	else
		run_go "$1" "$kind" "${words[@]}"
	fi
}

# prepare installs what the groups need. On a machine where we may not install, the tests that
# lack something skip, which is a failure only in CI.
prepare() { # groups
	local group setup=() status=0
	for group in "$@"; do
		# shellcheck disable=SC2207 # one word for each package group
		setup+=($(field "$group" 3))
	done
	tools/setup.sh "${setup[@]}" || status=$?
	if ((status != 0)) && { ((status != 3)) || [[ ${HOTSPARE_CI:-} == 1 ]]; }; then
		exit 1
	fi
	command -v go >/dev/null || { say "Go is missing: install the version that go.mod names, from go.dev/dl"; exit 1; }
}

# summary repeats the test runner's count over all groups that ran Go tests.
summary() {
	local events=("$RESULTS"/*.json)
	[[ -e ${events[0]} ]] || return 0
	bin/gotestsum --raw-command --format=none --hide-summary=skipped,output -- cat "${events[@]}" || true
}

main() {
	local setup=no group groups started report='' failed=0
	[[ ${1:-} == --setup ]] && { setup=yes; shift; }
	(($# == 1)) || { say "usage: tools/test.sh [--setup] all|GROUP[,GROUP...]"; exit 2; }
	IFS=, read -ra groups <<<"$1"
	[[ $1 == all ]] && mapfile -t groups < <(all_groups)
	for group in "${groups[@]}"; do
		field "$group" 1 >/dev/null || { say "unknown group $group; known:" $(all_groups); exit 2; }
	done
	[[ ${CI:-} == true ]] && export HOTSPARE_CI=1
	[[ $setup == yes ]] && prepare "${groups[@]}"
	rm -rf "$RESULTS"
	mkdir -p "$RESULTS"
	make --no-print-directory --silent bin/gotestsum
	for group in "${groups[@]}"; do
		printf '\n== %s\n' "$group"
		started=$SECONDS
		if run_group "$group"; then
			report+=$(printf '%-10s ok     %5d s' "$group" $((SECONDS - started)))$'\n'
		else
			report+=$(printf '%-10s FAILED %5d s' "$group" $((SECONDS - started)))$'\n'
			failed=1
		fi
	done
	printf '\n== all groups\n%s' "$report"
	summary
	return $failed
}

main "$@" </dev/null
