#!/bin/bash
# Runs the demo. With root on Debian it installs what the real site needs and is missing; elsewhere,
# or with HOTSPARE_DEMO=sim, the story is told on simulated VMs.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${HOTSPARE_DEMO:-} != sim ]]; then
	if [[ $(uname -s) != Linux ]] || ((EUID != 0)) || ! command -v apt-get >/dev/null; then
		printf 'demo: the real site needs root on Debian; here the same story on simulated VMs.\n'
		export HOTSPARE_DEMO=sim
	else
		tools/setup.sh base libvirt network monitoring
	fi
fi
go build -buildvcs=false -o bin/demo ./e2e/demo
exec bin/demo
