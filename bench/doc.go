// Package bench measures what the issues name figures for, each beside the physical limit measured in
// the same run. `make bench BENCH_PKGS=./bench` runs it; nothing imports it.
package bench
