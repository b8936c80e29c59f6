package bench

import "testing"

// TestBenchmarks: what measures still works. It asserts no figure.
func TestBenchmarks(t *testing.T) {
	for name, measure := range map[string]func(*testing.B){"declare": BenchmarkDeclare, "dev": BenchmarkDevReady} {
		t.Run(name, func(t *testing.T) {
			if r := testing.Benchmark(measure); r.N == 0 {
				t.Error("it failed")
			}
		})
	}
}
