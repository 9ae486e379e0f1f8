// Sums of exp(-sum_l W[t, l] D_l) over one side of a tile, for each term, group and item of the
// other side. With norms a, b and products P of two samples, D = max(0, a + b - 2 P).
//
// A block has 32 x 8 threads. Neighbouring threads read neighbouring products: they have an item
// each where these are of neighbouring items, and share items otherwise.
//
// What is left is the least exponent of an item and its sum relative to that, so that nothing
// underflows. The order of all additions is fixed.

static const double NOTHING = 1e308;  // exponent of an item without others in its group

static __device__ void include(double& least, double& sum, double exponent, double value) {
  if (exponent < least) {
    sum = sum * exp(exponent - least) + value;
    least = exponent;
  } else {
    sum += value * exp(least - exponent);
  }
}

extern "C" __global__ void masses(
    const PRODUCT* products,  // of layer l, item i, other k at l * layer_step + i * item_step + ...
    long long layer_step, long long item_step, long long other_step,
    const double* item_norms, const double* other_norms,    // (n_layers, n_items), (.., n_others)
    const int* item_labels, const int* other_labels,        // (n_groups - 1, n_items), ...
    const int* starts, const int* layers, const double* W,  // of term t from starts[t] on
    int n_items, int n_others,
    double* leasts, double* sums) {  // (n_terms, n_groups, n_items)
  __shared__ double all_leasts[256], all_sums[256];
  const int term = blockIdx.y, group = blockIdx.z;
  const bool own_items = item_step == 1;
  const int n_lanes = own_items ? 8 : 32;  // threads that share an item
  const int lane = own_items ? threadIdx.y : threadIdx.x;
  const long long item = own_items ? blockIdx.x * 32LL + threadIdx.x : blockIdx.x * 8LL + threadIdx.y;

  double least = NOTHING, sum = 0.0;
  if (item < n_items) {
    for (long long other = lane; other < n_others; other += n_lanes) {
      if (group) {
        const long long g = group - 1;
        if (item_labels[g * n_items + item] != other_labels[g * n_others + other]) continue;
      }
      double exponent = 0.0;
      for (int at = starts[term]; at < starts[term + 1]; ++at) {
        const long long l = layers[at];
        const double product = products[l * layer_step + item * item_step + other * other_step];
        const double distance =
            item_norms[l * n_items + item] + other_norms[l * n_others + other] - 2.0 * product;
        if (distance > 0.0) exponent += W[at] * distance;
      }
      include(least, sum, exponent, 1.0);
    }
  }
  const int here = threadIdx.y * 32 + threadIdx.x;
  all_leasts[here] = least;
  all_sums[here] = sum;
  __syncthreads();
  if (lane == 0 && item < n_items) {
    const int step = own_items ? 32 : 1;
    for (int i = 1; i < n_lanes; ++i) {
      include(least, sum, all_leasts[here + i * step], all_sums[here + i * step]);
    }
    const long long out = ((long long)term * gridDim.z + group) * n_items + item;
    leasts[out] = least;
    sums[out] = sum;
  }
}
