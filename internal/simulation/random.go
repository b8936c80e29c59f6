package simulation

import "time"

// chance is true with a probability.
func (s *sim) chance(p float64) bool { return s.rng.Float64() < p }

// between draws a duration.
func (s *sim) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.rng.Int64N(int64(high-low)+1))
}

// number draws from low to high, both included.
func (s *sim) number(low, high int) int { return low + s.rng.IntN(high-low+1) }

// pick draws one of a list that is not empty.
func pick[T any](s *sim, list []T) T { return list[s.rng.IntN(len(list))] }
