// Package archtest holds the rules that keep the architecture: which package may import which,
// what the pure packages may not do, how large things may grow. They are ordinary tests, so
// that breaking one shows where a person looks anyway, and so that an exception is a line with a
// reason in exceptions_test.go, which shows in review.
//
// Each rule is a value with samples of source that break it; a test proves on them that the rule
// can fail. The rules work on syntax, from the standard library only; the one on map order also
// asks the type checker. They see the files of the working tree except what is generated (gen/)
// or built (bin/, build/), and cope with packages that do not exist yet.
//
// Nothing imports this package. Its tests run in the group "unit" and never write.
package archtest
