// Where GPUs are, and what connects them.

#include "state.h"

nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t device, unsigned int *node)
{
	WHOLE(device, node);
	return small(&c, "own-node", node);
}

nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int size, unsigned long *set, nvmlAffinityScope_t scope)
{
	WHOLE(device, size && set && scope <= NVML_AFFINITY_SCOPE_SOCKET);
	unsigned int node;
	TRY(small(&c, "node", &node));
	memset(set, 0, size * sizeof *set);
	if (node / 64 < size) set[node / 64] = 1UL << node % 64;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int size, unsigned long *set)
{
	WHOLE(device, size && set);
	const char *p = find(&c, c.object, "cpus");
	if (!p) return NVML_ERROR_NOT_SUPPORTED;
	memset(set, 0, size * sizeof *set);
	for (unsigned int i = 0; i < size && *p != '\n'; i++, p += *p == ' ') set[i] = strtoul(p, (char **)&p, 16);
	return NVML_SUCCESS;
}

// between finds how two GPUs are connected: how near, and by how many links.
static bool between(const struct call *c, int a, int b, int *level, unsigned int *links)
{
	char object[16], key[16];
	snprintf(object, sizeof object, "gpu%d", a);
	snprintf(key, sizeof key, "peer %d", b);
	const char *p = find(c, object, key);
	return p && sscanf(p, "%d %u", level, links) == 2;
}

// switched says how many links a GPU has to the switch.
static unsigned int switched(const struct call *c, int gpu)
{
	char object[16];
	snprintf(object, sizeof object, "gpu%d", gpu);
	const char *p = find(c, object, "switched");
	return p ? (unsigned int)atoi(p) : 0;
}

// pair makes a call about two GPUs; the first stays the call's own.
static nvmlReturn_t pair(struct call *c, nvmlDevice_t other, int *level, unsigned int *links)
{
	struct call second = {.text = c->text};
	TRY(aim_handle(&second, other));
	if (second.mig) return NVML_ERROR_NOT_SUPPORTED;
	*level = NVML_TOPOLOGY_INTERNAL;
	*links = 0;
	return second.gpu == c->gpu || between(c, c->gpu, second.gpu, level, links) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device1, nvmlDevice_t device2, nvmlGpuTopologyLevel_t *path)
{
	WHOLE(device1, path);
	int level;
	unsigned int links;
	TRY(pair(&c, device2, &level, &links));
	*path = (nvmlGpuTopologyLevel_t)level;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t device1, nvmlDevice_t device2, nvmlGpuP2PCapsIndex_t index, nvmlGpuP2PStatus_t *status)
{
	WHOLE(device1, status && index < NVML_P2P_CAPS_INDEX_UNKNOWN);
	int level;
	unsigned int links;
	TRY(pair(&c, device2, &level, &links));
	unsigned int own = switched(&c, c.gpu);
	TRY(aim_handle(&c, device2));
	bool linked = links || (own && switched(&c, c.gpu));
	*status = index != NVML_P2P_CAPS_INDEX_NVLINK || linked ? NVML_P2P_STATUS_OK : NVML_P2P_STATUS_NOT_SUPPORTED;
	return NVML_SUCCESS;
}

// remote finds whose the other end of a link is, or leaves it empty where there is none. Links are numbered by peer, and those to the
// switch come last.
static nvmlReturn_t remote(const struct call *c, unsigned int link, char object[16])
{
	unsigned int all = 0;
	*object = 0;
	for (int peer = 0; peer < gpus(c); peer++) {
		int level;
		unsigned int links;
		if (!between(c, c->gpu, peer, &level, &links)) continue;
		if (!*object && link < all + links) snprintf(object, 16, "gpu%d", peer);
		all += links;
	}
	if (!*object && link < all + switched(c, c->gpu)) snprintf(object, 16, "switch");
	all += switched(c, c->gpu);
	if (!all) return NVML_ERROR_NOT_SUPPORTED;
	return link < NVML_NVLINK_MAX_LINKS ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, nvmlEnableState_t *active)
{
	WHOLE(device, active);
	char end[16];
	TRY(remote(&c, link, end));
	*active = *end ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link, nvmlPciInfo_t *pci)
{
	WHOLE(device, pci);
	char end[16];
	TRY(remote(&c, link, end));
	return *end ? pci_of(&c, end, pci) : NVML_ERROR_INVALID_ARGUMENT;
}
