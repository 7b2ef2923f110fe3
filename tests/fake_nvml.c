/* Two GPUs for telemetry that asks NVML: what nvidia-ml-py calls, with made-up answers.

   FAKE_NVML=broken: nvmlInit fails; FAKE_NVML=no_power: neither power nor energy is supported;
   FAKE_NVML=no_energy: energy is not. A GPU's counter of energy grows by its power for a second, in
   joules, whenever it is asked. Every question is a line "<process> <question> <device>" in the file
   FAKE_NVML_LOG. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };

typedef struct { unsigned utilisation; unsigned long long used; unsigned milliwatts; const char *uuid; } Gpu;
static Gpu gpus[] = {
    {90, 3ULL << 30, 300000, "GPU-aaaa0000-0000-0000-0000-000000000000"},
    {40, 2ULL << 30, 150000, "GPU-bbbb0000-0000-0000-0000-000000000000"},
};

static int mode(const char *name) {
    const char *set = getenv("FAKE_NVML");
    return set && strcmp(set, name) == 0;
}

static void note(const char *question, const Gpu *gpu) {
    FILE *log = fopen(getenv("FAKE_NVML_LOG"), "a");
    fprintf(log, "%d %s %d\n", (int)getpid(), question, gpu ? (int)(gpu - gpus) : -1);
    fclose(log);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    note("init", NULL);
    return mode("broken") ? DRIVER_NOT_LOADED : SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
    if (index > 1) return NOT_FOUND;
    *gpu = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned length) {
    snprintf(uuid, length, "%s", gpu->uuid);
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Gpu *gpu, unsigned rates[2]) {
    note("utilisation", gpu);
    rates[0] = gpu->utilisation;
    rates[1] = 0;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Gpu *gpu, unsigned long long memory[3]) {
    note("memory", gpu);
    memory[0] = 80ULL << 30;
    memory[1] = memory[0] - gpu->used;
    memory[2] = gpu->used;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(Gpu *gpu, unsigned *milliwatts) {
    note("power", gpu);
    *milliwatts = gpu->milliwatts;
    return mode("no_power") ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(Gpu *gpu, unsigned long long *millijoules) {
    static unsigned long long spent[2] = {7000000, 9000000};
    note("energy", gpu);
    *millijoules = spent[gpu - gpus] += gpu->milliwatts;
    return mode("no_power") || mode("no_energy") ? NOT_SUPPORTED : SUCCESS;
}

const char *nvmlErrorString(int code) {
    return code == NOT_SUPPORTED ? "Not Supported" : "Driver Not Loaded";
}
