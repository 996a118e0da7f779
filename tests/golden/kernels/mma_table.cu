// qtune 0.1.0 (generator 8)
// problem:  w4a16.nf4-b64.bf16-bf16.n5120.k5120.m16@sm90a.132
// schedule: mma tile=16x64x128 warps=2x2 stages=3 split=1 pad=16 raster=rows dequant=(* s (sum (* (pair q) x)))

static __device__ __forceinline__ unsigned and_or(unsigned a, unsigned mask, unsigned bits) {
  unsigned d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
}

static __device__ __forceinline__ unsigned permute(unsigned a, unsigned b, unsigned selectors) {
  unsigned d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selectors));
  return d;
}

static __device__ __forceinline__ unsigned table_word(const unsigned* table, unsigned offset) {
  return *reinterpret_cast<const unsigned*>(reinterpret_cast<const char*>(table) + offset);
}

static __device__ __forceinline__ float bits_f32(unsigned a) { return __uint_as_float(a); }

static __device__ __forceinline__ unsigned short to_bf16(float a) {
  unsigned short d;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(d) : "f"(a));
  return d;
}

static __device__ __forceinline__ float fma_f32(float a, float b, float c) { return __fmaf_rn(a, b, c); }

static __device__ __forceinline__ uint4 pack_u32x4(unsigned a, unsigned b, unsigned c, unsigned d) { return make_uint4(a, b, c, d); }

static __device__ __forceinline__ void copy_async_16(unsigned place, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
               :: "r"(place), "l"(global) : "memory");
}

static __device__ __forceinline__ void copy_async_16_if(unsigned place, const void* global, bool wanted) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; "
               "@p cp.async.cg.shared.global.L2::128B [%0], [%1], 16; }"
               :: "r"(place), "l"(global), "r"((unsigned)wanted) : "memory");
}

static __device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int pending> static __device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" :: "n"(pending) : "memory");
}

static __device__ __forceinline__ unsigned shared_place(const void* place) {
  return (unsigned)__cvta_generic_to_shared(place);
}

static __device__ __forceinline__ unsigned shared_behind(unsigned place, int bytes) { return place + bytes; }

static __device__ __forceinline__ void ldmatrix_x4(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(row) : "memory");
}

static __device__ __forceinline__ void mma_bf16(float& c0, float& c1, float& c2, float& c3, unsigned a0, unsigned a1,
              unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

constexpr int N = 5120;
constexpr int K = 5120;
constexpr int STEPS = 40;

extern "C" __global__ void __launch_bounds__(128, 1)
qtune_mma_w4a16_nf4_b64_bf16_bf16_n5120_k5120_m16(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const uint4* __restrict__ x,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 12288);
  float* const red = reinterpret_cast<float*>(shared + 0);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 25344);
  uint2* const row_pairs = reinterpret_cast<uint2*>(shared + 25344);
  unsigned* const table = reinterpret_cast<unsigned*>(shared + 26880);
  uint4* const table_pieces = reinterpret_cast<uint4*>(shared + 26880);
  // prologue: this block's tile and this warp's part of it
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = warp % 2;
  const int warp_k = warp / 2;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int first = 0;
  const int last = STEPS;
  const int lane_piece = (warp_n * 2 * 2 + warp_k) * 32 + lane;
  const unsigned lane_weights = shared_place(&ring_weights[lane_piece]);
  const unsigned thread_params = shared_place(&ring_params[thread]);
  int x_from[1] = {};
  unsigned x_to[1] = {};
  const int x_piece = thread;
  const int x_token = x_piece / 8;
  const int x_m = token_tile * 16 + x_token;
  x_from[0] = ((x_m < tokens) ? x_m : tokens - 1) * (K / 8) + x_piece % 8;
  x_to[0] = shared_place(&ring_x[x_token * 17 + x_piece % 8]);
  const unsigned lane_tokens = shared_place(&ring_x[(lane / 16 * 8 + lane % 8) * 17 + (warp_k * 8 + lane / 8 % 2)]);
  float total[2][2][4] = {};

  // fill the ring: all stages but one
  for (int ahead = 0; ahead < 2; ++ahead) {
    const int step = first + ahead;
    if (step < last) {
      const unsigned weights_to = shared_behind(lane_weights, ahead * 4096);
      const int weights_from = (row_tile * STEPS + step) * 256 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        copy_async_16(shared_behind(weights_to, row_part * 64 * 16), &weights[weights_from + row_part * 64]);
      }
      const int x_stage = ahead * 4352;
      const int x_k8 = step * 16;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 2; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 128), &x[x_k8 + x_from[0] + x_turn * 8]);
      }
      const unsigned params_to = shared_behind(thread_params, ahead * 512);
      const int params_from = (row_tile * STEPS + step) * 32;
      const int param_piece = thread;
      copy_async_16_if(shared_behind(params_to, 0), &params[params_from + param_piece], param_piece < 32);
    }
    copy_commit();
  }

  // fill the table: for every pair of codes their values, a copy for each lane
  const unsigned lane_bytes = static_cast<unsigned>(lane) * 0x00000004u;
  for (int piece = thread; piece < 2048; piece += 128) {
    const unsigned codes = static_cast<unsigned>(piece / 8);
    const unsigned fill_entry = codes & 0x77777777u;
    const unsigned fill_half = and_or(codes >> 1, 0x44444444u, 0x32103210u);
    const unsigned fill_low_lower = permute(0xca063280u, 0x00ba3d92u, fill_entry);
    const unsigned fill_low_upper = permute(0xad7c25a3u, 0x803910e2u, fill_entry);
    const unsigned fill_low = permute(fill_low_lower, fill_low_upper, fill_half);
    const unsigned fill_high_lower = permute(0xbebfbfbfu, 0x00bdbebeu, fill_entry);
    const unsigned fill_high_upper = permute(0x3e3e3e3du, 0x3f3f3f3eu, fill_entry);
    const unsigned fill_high = permute(fill_high_lower, fill_high_upper, fill_half);
    const unsigned values = permute(fill_low, fill_high, 0x00005140u);
    table_pieces[piece / 8 * 8 + piece % 8] = pack_u32x4(values, values, values, values);
  }

  // mainloop: wait for the oldest stage, refill the one before it, compute
  int slot = 0;
  int free = 2;
  for (int step = first; step < last; ++step) {
    copy_wait<1>();
    __syncthreads();
    const int next = step + 2;
    if (next < last) {
      const unsigned weights_to = shared_behind(lane_weights, free * 4096);
      const int weights_from = (row_tile * STEPS + next) * 256 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        copy_async_16(shared_behind(weights_to, row_part * 64 * 16), &weights[weights_from + row_part * 64]);
      }
      const int x_stage = free * 4352;
      const int x_k8 = next * 16;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 2; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 128), &x[x_k8 + x_from[0] + x_turn * 8]);
      }
      const unsigned params_to = shared_behind(thread_params, free * 512);
      const int params_from = (row_tile * STEPS + next) * 32;
      const int param_piece = thread;
      copy_async_16_if(shared_behind(params_to, 0), &params[params_from + param_piece], param_piece < 32);
    }
    copy_commit();
    const int weights_at = slot * 256 + lane_piece;
    const unsigned tokens_at = shared_behind(lane_tokens, slot * 4352);
    float group_sum0[2][2][4] = {};
    unsigned row_words[2][2];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      {
        const uint2 packed = row_pairs[(slot * 2 + warp_k * 64 / 64) * 32 + (warp_n * 2 + row_part) * 8 + lane / 4];
        row_words[row_part][0] = packed.x;
        row_words[row_part][1] = packed.y;
      }
    }
    unsigned words[2][4];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      {
        const uint4 packed = ring_weights[weights_at + row_part * 64];
        words[row_part][0] = packed.x;
        words[row_part][1] = packed.y;
        words[row_part][2] = packed.z;
        words[row_part][3] = packed.w;
      }
    }
    #pragma unroll
    for (int half = 0; half < 2; ++half) {
      unsigned frag_b[2][2][2];
      #pragma unroll
      for (int k16 = 0; k16 < 2; ++k16) {
        ldmatrix_x4(frag_b[k16][0][0], frag_b[k16][0][1], frag_b[k16][1][0], frag_b[k16][1][1], shared_behind(tokens_at, (half * 4 + k16 * 2) * 16));
      }
      #pragma unroll
      for (int k16 = 0; k16 < 2; ++k16) {
        #pragma unroll
        for (int row_part = 0; row_part < 2; ++row_part) {
          const unsigned word = words[row_part][half * 2 + k16];
          const unsigned frag0_a0 = table_word(&table[0], and_or(word << 7, 0x00007f80u, lane_bytes));
          const unsigned frag0_a1 = table_word(&table[0], and_or(word >> 1, 0x00007f80u, lane_bytes));
          const unsigned frag0_a2 = table_word(&table[0], and_or(word >> 9, 0x00007f80u, lane_bytes));
          const unsigned frag0_a3 = table_word(&table[0], and_or(word >> 17, 0x00007f80u, lane_bytes));
          #pragma unroll
          for (int token_part = 0; token_part < 2; ++token_part) {
            mma_bf16(group_sum0[row_part][token_part][0], group_sum0[row_part][token_part][1], group_sum0[row_part][token_part][2], group_sum0[row_part][token_part][3], frag0_a0, frag0_a1, frag0_a2, frag0_a3, frag_b[k16][token_part][0], frag_b[k16][token_part][1]);
          }
        }
      }
    }
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      const float coefficient0_0 = bits_f32(row_words[row_part][0]);
      #pragma unroll
      for (int token_part = 0; token_part < 2; ++token_part) {
        total[row_part][token_part][0] = fma_f32(coefficient0_0, group_sum0[row_part][token_part][0], total[row_part][token_part][0]);
        total[row_part][token_part][1] = fma_f32(coefficient0_0, group_sum0[row_part][token_part][1], total[row_part][token_part][1]);
      }
      const float coefficient0_1 = bits_f32(row_words[row_part][1]);
      #pragma unroll
      for (int token_part = 0; token_part < 2; ++token_part) {
        total[row_part][token_part][2] = fma_f32(coefficient0_1, group_sum0[row_part][token_part][2], total[row_part][token_part][2]);
        total[row_part][token_part][3] = fma_f32(coefficient0_1, group_sum0[row_part][token_part][3], total[row_part][token_part][3]);
      }
    }
    free = slot;
    slot = (slot + 1 == 3) ? 0 : slot + 1;
  }
  copy_wait<0>();

  // partial sums of all warps meet in shared memory
  __syncthreads();
  #pragma unroll
  for (int row_part = 0; row_part < 2; ++row_part) {
    #pragma unroll
    for (int token_part = 0; token_part < 2; ++token_part) {
      red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][token_part][0];
      red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2 + 1)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][token_part][1];
      red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][token_part][2];
      red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2 + 1)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][token_part][3];
    }
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  for (int i = thread; i < 1024; i += 128) {
    const int row = i % 64;
    const int token = i / 64;
    float sum = red[token * 68 + row];
    sum = sum + red[(16 + token) * 68 + row];
    const int n = row_tile * 64 + row;
    const int m = token_tile * 16 + token;
    if ((n < N) && (m < tokens)) {
      out[m * N + n] = to_bf16(sum);
    }
  }
}
