#!/bin/bash
# Checks that what is generated or derived is up to date: gen/ against proto/, go.mod and go.sum
# against the imports, and the formatting of hand-written Go. Works on a copy, so the tree stays
# as it was. `make proto`, `go mod tidy` and `gofmt -w` repair what it reports.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
failed=0

complain() { # what, how to repair
	printf 'verify: %s; run: %s\n' "$1" "$2" >&2
	failed=1
}

# existing prints the files of the working tree, ended by NUL: also what is new and not yet
# added, but not what is deleted and still in the index.
existing() { # paths as git understands them
	git ls-files -z --cached --others --exclude-standard -- "$@" |
		while IFS= read -r -d '' file; do
			if [[ -e $file ]]; then printf '%s\0' "$file"; fi
		done
}

existing . | tar --null --files-from=- -cf - | tar -xf - -C "$copy"
ln -s "$PWD/bin" "$copy/bin"

(cd "$copy" && bin/buf generate)
diff -ru gen "$copy/gen" || complain "gen/ differs from what proto/ gives" "make proto"

go mod tidy -diff || complain "go.mod or go.sum is not tidy" "go mod tidy"

mapfile -d '' -t written < <(existing '*.go' ':!gen')
unformatted=$(gofmt -l "${written[@]}")
[[ -z $unformatted ]] || complain "not formatted: ${unformatted//$'\n'/ }" "gofmt -w ${unformatted//$'\n'/ }"

exit $failed
