package nvidia

import (
	"fmt"

	"github.com/mayfly/mayfly/gpu"
)

// xid is what is known of an error number.
type xid struct {
	severity gpu.Severity
	text     string
}

// ignored are reports that ask for nothing.
const ignored gpu.Severity = 0

// xids is the policy: what NVIDIA's table of XID errors (docs.nvidia.com/deploy/xid-errors, "Immediate Action") tells operators to
// do. What the driver itself says it wants done (the recovery action) comes first, and is asked for each time a GPU is looked at.
var xids = map[uint64]xid{
	13:  {gpu.Application, "graphics engine exception"},
	31:  {gpu.Application, "GPU memory page fault"},
	43:  {gpu.Application, "GPU stopped processing"},
	45:  {gpu.Application, "preemptive cleanup, due to previous errors"},
	46:  {gpu.Broken, "GPU stopped processing, and must be reset"},
	48:  {gpu.Check, "double bit ECC error"},
	61:  {gpu.Check, "internal micro-controller breakpoint or warning"},
	62:  {gpu.Broken, "internal micro-controller halt"},
	63:  {ignored, "ECC page retirement or row remapping recorded"},
	64:  {gpu.Broken, "ECC page retirement or row remapping failed"},
	68:  {gpu.Application, "NVDEC0 exception"},
	69:  {gpu.Application, "graphics engine class error"},
	74:  {gpu.Check, "NVLink error"},
	79:  {gpu.Broken, "GPU has fallen off the bus: the host must be restarted"},
	92:  {ignored, "high single-bit ECC error rate"},
	94:  {gpu.Application, "contained memory error"},
	95:  {gpu.Broken, "uncontained memory error"},
	109: {gpu.Broken, "context switch timeout"},
	110: {gpu.Broken, "security fault"},
	119: {gpu.Broken, "GSP RPC timeout"},
	120: {gpu.Broken, "GSP error"},
	121: {ignored, "corrected C2C NVLink error"},
	140: {gpu.Broken, "unrecovered ECC error"},
	143: {gpu.Broken, "GPU initialization error"},
	154: {gpu.Check, "the recovery action has changed"},
}

// judge says what an error report means. A number that is not known is looked into.
func judge(number uint64) (gpu.Severity, string) {
	x, ok := xids[number]
	if !ok {
		x = xid{gpu.Check, "not in the policy table"}
	}
	return x.severity, fmt.Sprintf("XID %d: %s", number, x.text)
}

// recovery puts a recovery action (nvmlDeviceGpuRecoveryAction_t) in words that follow "the driver wants to".
func recovery(action uint64) string {
	switch action {
	case 0:
		return ""
	case 1:
		return "reset the GPU (nvidia-smi --gpu-reset)"
	case 2, 7:
		return "restart the host"
	case 3:
		return "drain peer-to-peer traffic"
	case 4:
		return "drain peer-to-peer traffic and reset the GPU"
	case 5:
		return "recover the IMEX domain"
	case 6:
		return "reset the GPU's bus"
	}
	return fmt.Sprintf("have recovery action %d done", action)
}
