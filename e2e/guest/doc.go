// Package guest makes the tiny virtual machine that the tests protect, lend, save and
// fail over: a Debian cloud kernel, an initramfs with one static Go program (package
// guest/init) and a disk with a marker and records (package guest/disk).
//
// It builds the files and the words that describe a guest (kernel arguments, domain XML);
// it never starts one. The lab, the drivers' tests against real parts and the end-to-end
// tests call it. It uses no product code, so that what it says about a guest is an
// independent observation.
//
// The kernel is fetched once with apt-get download, unpacked and kept in the cache; it is not
// installed, and a kernel in the cache is used without asking for a newer one, so that
// a test run does not change under its user. Empty the cache to get a new kernel.
package guest
