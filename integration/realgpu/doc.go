// Package realgpu tests the built mayfly on a machine with an NVIDIA GPU, with CUDA programs as tasks, and writes a report of it.
//
// # Theory of operation
//
// Machines with GPUs often have no compiler, and machines with a compiler no GPU. So `make build-test-gpu` makes a folder with all that a
// run takes (mayfly, the program in cuda/task.c, this package's tests, and run.sh), and run.sh runs what lies beside it. Only then do
// the environment variables that TestRealGPU asks for exist; in a usual run of all tests it is left out.
//
// The checks are a list of functions. Each has a line in the report, with what it measured and what was wrong; the report is written anew after
// each of them, so that a run that is cut short has one, too. A check ends when its time is over, and so does the whole run.
//
// That the checks themselves work is tested everywhere: TestDryRun has them run with the library of package fakegpu in place of NVML, and
// cuda/fake.c in place of CUDA's. Its report says so and goes nowhere.
package realgpu
