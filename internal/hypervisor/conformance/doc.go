// Package conformance is the one suite that every hypervisor driver must pass, the simulated host
// included: the promises of package hypervisor as named cases. The tests of each driver call Run
// with a harness that knows how to make a fresh fixture of that driver.
//
// Each case logs one line, "conformance DRIVER CASE pass", with fail or skip as the last word, so that
// CI can print a matrix of driver and case and refuse a missing cell (Cases). A case is skipped when
// the driver lacks an optional interface or the fixture an optional hook that it needs.
//
// The suite judges by the driver's interface and by the fixture's hooks, which look at the host by
// other means than the driver. It must never know one driver from another.
package conformance
