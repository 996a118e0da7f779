// qtune 0.1.0 (generator 8)
// problem:  w4a16.awq-g32.f16-f16.n144.k96.m16@sm90a.132
// schedule: mma tile=16x48x64 warps=3x1 stages=1 split=1 pad=0 raster=rows dequant=(sum (* (* (- (real q) z) s) x))

static __device__ __forceinline__ unsigned permute(unsigned a, unsigned b, unsigned selectors) {
  unsigned d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selectors));
  return d;
}

static __device__ __forceinline__ unsigned h2_sub(unsigned a, unsigned b) {
  unsigned d;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

static __device__ __forceinline__ unsigned h2_mul(unsigned a, unsigned b) {
  unsigned d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

static __device__ __forceinline__ unsigned h2_both_low(unsigned a) {
  unsigned d;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {l, l}; }" : "=r"(d) : "r"(a));
  return d;
}

static __device__ __forceinline__ unsigned h2_both_high(unsigned a) {
  unsigned d;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {h, h}; }" : "=r"(d) : "r"(a));
  return d;
}

static __device__ __forceinline__ unsigned h2_pack(float low, float high) {
  unsigned d;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}

static __device__ __forceinline__ unsigned short to_f16(float a) {
  unsigned short d;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(d) : "f"(a));
  return d;
}

static __device__ __forceinline__ void copy_async_16(unsigned place, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
               :: "r"(place), "l"(global) : "memory");
}

static __device__ __forceinline__ void copy_async_16_if(unsigned place, const void* global, bool wanted) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; "
               "@p cp.async.cg.shared.global.L2::128B [%0], [%1], 16; }"
               :: "r"(place), "l"(global), "r"((unsigned)wanted) : "memory");
}

static __device__ __forceinline__ void copy_async_16_or_zero(unsigned place, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
               :: "r"(place), "l"(global),
                  "r"(valid ? 16 : 0) : "memory");
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

static __device__ __forceinline__ void mma_f16(float& c0, float& c1, float& c2, float& c3, unsigned a0, unsigned a1,
             unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

constexpr int N = 144;
constexpr int K = 96;
constexpr int STEPS = 2;

extern "C" __global__ void __launch_bounds__(96, 4)
qtune_mma_w4a16_awq_g32_f16_f16_n144_k96_m16(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const uint4* __restrict__ x,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 1536);
  float* const red = reinterpret_cast<float*>(shared + 0);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 3584);
  uint2* const row_pairs = reinterpret_cast<uint2*>(shared + 3584);
  // prologue: this block's tile and this warp's part of it
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = warp % 3;
  const int warp_k = warp / 3;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int first = 0;
  const int last = STEPS;
  const int lane_piece = (warp_n + warp_k) * 32 + lane;
  const unsigned lane_weights = shared_place(&ring_weights[lane_piece]);
  const unsigned thread_params = shared_place(&ring_params[thread]);
  int x_from[2] = {};
  unsigned x_to[2] = {};
  #pragma unroll
  for (int x_piece_turn = 0; x_piece_turn < 2; ++x_piece_turn) {
    const int x_piece = x_piece_turn * 96 + thread;
    if (x_piece < 128) {
      const int x_token = x_piece / 8;
      const int x_m = token_tile * 16 + x_token;
      x_from[x_piece_turn] = ((x_m < tokens) ? x_m : tokens - 1) * (K / 8) + x_piece % 8;
      x_to[x_piece_turn] = shared_place(&ring_x[x_token * 8 + x_piece % 8]);
    }
  }
  const unsigned lane_tokens = shared_place(&ring_x[(lane / 16 * 8 + lane % 8) * 8 + (warp_k * 8 + lane / 8 % 2)]);
  float total[1][2][4] = {};

  // mainloop: load a stage, wait for it, compute
  for (int step = first; step < last; ++step) {
    const unsigned weights_to = shared_behind(lane_weights, 0);
    const int weights_from = (row_tile * STEPS + step) * 96 + lane_piece;
    copy_async_16(shared_behind(weights_to, 0), &weights[weights_from]);
    const int x_stage = 0;
    const int x_k8 = step * 8;
    #pragma unroll
    for (int x_copy_turn = 0; x_copy_turn < 2; ++x_copy_turn) {
      const int x_copy = x_copy_turn * 96 + thread;
      if (x_copy < 128) {
        const bool x_valid = x_k8 + x_copy % 8 < K / 8;
        copy_async_16_or_zero(shared_behind(shared_behind(x_to[x_copy_turn], x_stage), 0), &x[x_valid ? x_k8 + x_from[x_copy_turn] : 0], x_valid);
      }
    }
    const unsigned params_to = shared_behind(thread_params, 0);
    const int params_from = (row_tile * STEPS + step) * 24;
    const int param_piece = thread;
    copy_async_16_if(shared_behind(params_to, 0), &params[params_from + param_piece], param_piece < 24);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    const int weights_at = lane_piece;
    const unsigned tokens_at = shared_behind(lane_tokens, 0);
    #pragma unroll
    for (int segment = 0; segment < 2; ++segment) {
      unsigned row_words[1][2];
      {
        const uint2 packed = row_pairs[(warp_k * 64 + segment * 32) / 32 * 24 + warp_n * 8 + lane / 4];
        row_words[0][0] = packed.x;
        row_words[0][1] = packed.y;
      }
      unsigned invariant0[1][1];
      invariant0[0][0] = permute(row_words[0][0], row_words[0][1], 0x00007632u);
      unsigned invariant1[1][1];
      invariant1[0][0] = permute(row_words[0][0], row_words[0][1], 0x00005410u);
      unsigned words[1][4];
      {
        const uint4 packed = ring_weights[weights_at + segment / 2 * 32];
        words[0][0] = packed.x;
        words[0][1] = packed.y;
        words[0][2] = packed.z;
        words[0][3] = packed.w;
      }
      unsigned frag_b[2][2][2];
      #pragma unroll
      for (int k16 = 0; k16 < 2; ++k16) {
        ldmatrix_x4(frag_b[k16][0][0], frag_b[k16][0][1], frag_b[k16][1][0], frag_b[k16][1][1], shared_behind(tokens_at, (segment / 2 * 8 + segment % 2 * 4 + k16 * 2) * 16));
      }
      #pragma unroll
      for (int k16 = 0; k16 < 2; ++k16) {
        const unsigned word = words[0][segment % 2 * 2 + k16];
        const unsigned frag0_a0 = h2_mul(h2_sub(h2_pack(static_cast<float>(word & 0x0000000fu), static_cast<float>((word >> 16) & 0x0000000fu)), h2_both_low(invariant0[0][0])), h2_both_low(invariant1[0][0]));
        const unsigned frag0_a1 = h2_mul(h2_sub(h2_pack(static_cast<float>((word >> 4) & 0x0000000fu), static_cast<float>(((word >> 4) >> 16) & 0x0000000fu)), h2_both_high(invariant0[0][0])), h2_both_high(invariant1[0][0]));
        const unsigned frag0_a2 = h2_mul(h2_sub(h2_pack(static_cast<float>((word >> 8) & 0x0000000fu), static_cast<float>(((word >> 8) >> 16) & 0x0000000fu)), h2_both_low(invariant0[0][0])), h2_both_low(invariant1[0][0]));
        const unsigned frag0_a3 = h2_mul(h2_sub(h2_pack(static_cast<float>((word >> 12) & 0x0000000fu), static_cast<float>(((word >> 12) >> 16) & 0x0000000fu)), h2_both_high(invariant0[0][0])), h2_both_high(invariant1[0][0]));
        #pragma unroll
        for (int token_part = 0; token_part < 2; ++token_part) {
          mma_f16(total[0][token_part][0], total[0][token_part][1], total[0][token_part][2], total[0][token_part][3], frag0_a0, frag0_a1, frag0_a2, frag0_a3, frag_b[k16][token_part][0], frag_b[k16][token_part][1]);
        }
      }
    }
    __syncthreads();
  }

  // partial sums of all warps meet in shared memory
  __syncthreads();
  #pragma unroll
  for (int token_part = 0; token_part < 2; ++token_part) {
    red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2)) * 52 + (warp_n * 16 + lane / 4)] = total[0][token_part][0];
    red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2 + 1)) * 52 + (warp_n * 16 + lane / 4)] = total[0][token_part][1];
    red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2)) * 52 + (warp_n * 16 + lane / 4 + 8)] = total[0][token_part][2];
    red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2 + 1)) * 52 + (warp_n * 16 + lane / 4 + 8)] = total[0][token_part][3];
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  for (int i = thread; i < 768; i += 96) {
    const int row = i % 48;
    const int token = i / 48;
    const int n = row_tile * 48 + row;
    const int m = token_tile * 16 + token;
    if ((n < N) && (m < tokens)) {
      out[m * N + n] = to_f16(red[token * 52 + row]);
    }
  }
}
