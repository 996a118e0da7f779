// qtune 0.1.0 (generator 8)
// problem:  w4a16.nf4-b64-dq.f16-f16.n8192.k8192.m1@sm90a.132
// schedule: gemv tokens=1 rows=4 lanes=32 warps=8x2 unroll=2 split=1 x=shared acc=half2 cache=stream dequant=(* (* (nested s c n) 256) (sum (* (page q) (* 0.00390625 x))))

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

static __device__ __forceinline__ unsigned h2_mul(unsigned a, unsigned b) {
  unsigned d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

static __device__ __forceinline__ unsigned h2_fma(unsigned a, unsigned b, unsigned c) {
  unsigned d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

static __device__ __forceinline__ float bits_f32(unsigned a) { return __uint_as_float(a); }

static __device__ __forceinline__ unsigned short to_f16(float a) {
  unsigned short d;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(d) : "f"(a));
  return d;
}

static __device__ __forceinline__ float fma_f32(float a, float b, float c) { return __fmaf_rn(a, b, c); }

static __device__ __forceinline__ unsigned nested_scale(float value, float scale, float offset) {
  return __float_as_uint(__fadd_rn(__fmul_rn(value, scale), offset));
}

static __device__ __forceinline__ float shfl_xor(float a, int mask) { return __shfl_xor_sync(0xffffffffu, a, mask); }

static __device__ __forceinline__ uint4 load_stream(const uint4* p) {
  uint4 d;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w) : "l"(p));
  return d;
}

static __device__ __forceinline__ uint4 load_four_words(const void* p) {
  return __ldg(reinterpret_cast<const uint4*>(p));
}

static __device__ __forceinline__ uint4 pack_u32x4(unsigned a, unsigned b, unsigned c, unsigned d) { return make_uint4(a, b, c, d); }

static __device__ __forceinline__ void mma_f16(float& c0, float& c1, float& c2, float& c3, unsigned a0, unsigned a1,
             unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

constexpr int N = 8192;
constexpr int K = 8192;
constexpr int STEPS = 8;

extern "C" __global__ void __launch_bounds__(512, 1)
qtune_gemv_w4a16_nf4_b64_dq_f16_f16_n8192_k8192_m1(const uint4* __restrict__ weights,
    const unsigned* __restrict__ params,
    const unsigned* __restrict__ nested_map,
    const uint4* __restrict__ x,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  float* const red = reinterpret_cast<float*>(shared + 16512);
  uint4* const staged_x = reinterpret_cast<uint4*>(shared + 0);
  unsigned* const table = reinterpret_cast<unsigned*>(shared + 16768);
  uint4* const table_pieces = reinterpret_cast<uint4*>(shared + 16768);
  unsigned* const scale_map = reinterpret_cast<unsigned*>(shared + 82176);
  uint4* const scale_map_pieces = reinterpret_cast<uint4*>(shared + 82176);
  // prologue: this block's tile, this warp's rows, this lane's part of a row
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = warp % 8;
  const int warp_k = warp / 8;
  const int lane_row = lane / 32;
  const int lane_k = lane % 32;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int warp_tile = row_tile * 8 + warp_n;
  const int first = 0;
  const int last = STEPS;
  const unsigned own0 = (lane / 4 == lane % 4 * 2) ? 0x3c003c00u : 0x00000000u;
  const unsigned own1 = (lane / 4 == lane % 4 * 2 + 1) ? 0x3c003c00u : 0x00000000u;
  float total[1][4] = {};

  // fill the table: for every pair of codes their values, a copy for each lane
  const unsigned lane_bytes = static_cast<unsigned>(lane) * 0x00000004u;
  for (int piece = thread; piece < 2048; piece += 512) {
    const unsigned codes = static_cast<unsigned>(piece / 8);
    const unsigned fill_entry = codes & 0x77777777u;
    const unsigned fill_half = and_or(codes >> 1, 0x44444444u, 0x32103210u);
    const unsigned fill_low_lower = permute(0x52339200u, 0x00d4ea8du, fill_entry);
    const unsigned fill_low_upper = permute(0x68e02618u, 0x00c9800du, fill_entry);
    const unsigned fill_low = permute(fill_low_lower, fill_low_upper, fill_half);
    const unsigned fill_high_lower = permute(0xb6b8b9bcu, 0x00adb1b4u, fill_entry);
    const unsigned fill_high_upper = permute(0x3533312du, 0x3c393837u, fill_entry);
    const unsigned fill_high = permute(fill_high_lower, fill_high_upper, fill_half);
    const unsigned values = permute(fill_low, fill_high, 0x00005140u);
    table_pieces[piece / 8 * 16 + piece % 8] = pack_u32x4(values, values, values, values);
  }

  // fill the map of nested scales, a copy of each value in every bank
  const unsigned copy_bytes = static_cast<unsigned>(lane / 2 % 32) * 0x00000004u;
  const float scale_offset = bits_f32(nested_map[256]);
  for (int map_piece = thread; map_piece < 2048; map_piece += 512) {
    const unsigned bits = nested_map[map_piece / 8];
    scale_map_pieces[map_piece] = pack_u32x4(bits, bits, bits, bits);
  }

  // stage the activations of this block's k range
  const int chunks = (last - first) * 128;
  for (int chunk = thread; chunk < chunks; chunk += 512) {
    unsigned piece[4] = {};
    if ((token_tile < tokens) && (first * 128 + chunk < K / 8)) {
      {
        const uint4 packed = x[token_tile * (K / 8) + (first * 128 + chunk)];
        piece[0] = packed.x;
        piece[1] = packed.y;
        piece[2] = packed.z;
        piece[3] = packed.w;
      }
    }
    piece[0] = h2_mul(piece[0], 0x1c001c00u);
    piece[1] = h2_mul(piece[1], 0x1c001c00u);
    piece[2] = h2_mul(piece[2], 0x1c001c00u);
    piece[3] = h2_mul(piece[3], 0x1c001c00u);
    staged_x[chunk % 4 * 258 + chunk / 4] = pack_u32x4(piece[0], piece[1], piece[2], piece[3]);
  }
  __syncthreads();

  // mainloop: load the weights of several steps, then use them
  const int from = first + warp_k;
  for (int step = from; step < last - 2; step += 4) {
    unsigned words[2][4][4];
    unsigned entry[2][4][1];
    unsigned codes[2][1][1];
    unsigned shared[2][4];
    #pragma unroll
    for (int ahead = 0; ahead < 2; ++ahead) {
      #pragma unroll
      for (int row_part = 0; row_part < 4; ++row_part) {
        {
          const uint4 packed = load_stream(&weights[((warp_tile * STEPS + (step + ahead * 2)) * 4 + row_part) * 32 + lane]);
          words[ahead][row_part][0] = packed.x;
          words[ahead][row_part][1] = packed.y;
          words[ahead][row_part][2] = packed.z;
          words[ahead][row_part][3] = packed.w;
        }
      }
      const int params_from = (warp_tile * 8 + (step + ahead * 2)) * 20;
      codes[ahead][0][0] = params[params_from + (lane_row * 16 + lane_k * 32 / 64)];
      {
        const uint4 packed = load_four_words(&params[params_from + 16 + (lane_row + lane_k * 32 / 1024) * 4]);
        shared[ahead][0] = packed.x;
        shared[ahead][1] = packed.y;
        shared[ahead][2] = packed.z;
        shared[ahead][3] = packed.w;
      }
    }
    #pragma unroll
    for (int ahead = 0; ahead < 2; ++ahead) {
      #pragma unroll
      for (int row_part = 0; row_part < 4; ++row_part) {
        entry[ahead][row_part][0] = nested_scale(bits_f32(table_word(&scale_map[0], (((codes[ahead][0][row_part / 4] >> row_part % 4 * 8) << 7) & 0x00007f80u) | copy_bytes)), bits_f32(shared[ahead][row_part]), scale_offset);
      }
      unsigned group_sum0[1][4] = {};
      #pragma unroll
      for (int part = 0; part < 4; ++part) {
        unsigned act[1][4];
        {
          const uint4 packed = staged_x[part * 258 + ((step + ahead * 2 - first) * 32 + lane_k)];
          act[0][0] = packed.x;
          act[0][1] = packed.y;
          act[0][2] = packed.z;
          act[0][3] = packed.w;
        }
        #pragma unroll
        for (int row_part = 0; row_part < 4; ++row_part) {
          const unsigned word = words[ahead][row_part][part];
          const unsigned weight0_0 = table_word(&table[0], permute(word, lane_bytes, 0x00005504u));
          const unsigned weight0_1 = table_word(&table[0], permute(word, lane_bytes, 0x00005514u));
          const unsigned weight0_2 = table_word(&table[0], permute(word, lane_bytes, 0x00005524u));
          const unsigned weight0_3 = table_word(&table[0], permute(word, lane_bytes, 0x00005534u));
          group_sum0[0][row_part] = h2_fma(weight0_0, act[0][0], group_sum0[0][row_part]);
          group_sum0[0][row_part] = h2_fma(weight0_1, act[0][1], group_sum0[0][row_part]);
          group_sum0[0][row_part] = h2_fma(weight0_2, act[0][2], group_sum0[0][row_part]);
          group_sum0[0][row_part] = h2_fma(weight0_3, act[0][3], group_sum0[0][row_part]);
        }
      }
      float folded0[1][4] = {};
      mma_f16(folded0[0][0], folded0[0][1], folded0[0][2], folded0[0][3], group_sum0[0][0], group_sum0[0][2], group_sum0[0][1], group_sum0[0][3], own0, own1);
      #pragma unroll
      for (int row_part = 0; row_part < 4; ++row_part) {
        const float coefficient0 = bits_f32(entry[ahead][row_part][0]);
        total[0][row_part] = fma_f32(coefficient0, folded0[0][row_part], total[0][row_part]);
      }
    }
  }

  // the steps of an incomplete turn
  const int rest = from + (last - 2 + 3 - from) / 4 * 4;
  for (int step = rest; step < last; step += 2) {
    unsigned words[1][4][4];
    unsigned entry[1][4][1];
    unsigned codes[1][1][1];
    unsigned shared[1][4];
    #pragma unroll
    for (int row_part = 0; row_part < 4; ++row_part) {
      {
        const uint4 packed = load_stream(&weights[((warp_tile * STEPS + step) * 4 + row_part) * 32 + lane]);
        words[0][row_part][0] = packed.x;
        words[0][row_part][1] = packed.y;
        words[0][row_part][2] = packed.z;
        words[0][row_part][3] = packed.w;
      }
    }
    const int params_from = (warp_tile * 8 + step) * 20;
    codes[0][0][0] = params[params_from + (lane_row * 16 + lane_k * 32 / 64)];
    {
      const uint4 packed = load_four_words(&params[params_from + 16 + (lane_row + lane_k * 32 / 1024) * 4]);
      shared[0][0] = packed.x;
      shared[0][1] = packed.y;
      shared[0][2] = packed.z;
      shared[0][3] = packed.w;
    }
    #pragma unroll
    for (int row_part = 0; row_part < 4; ++row_part) {
      entry[0][row_part][0] = nested_scale(bits_f32(table_word(&scale_map[0], (((codes[0][0][row_part / 4] >> row_part % 4 * 8) << 7) & 0x00007f80u) | copy_bytes)), bits_f32(shared[0][row_part]), scale_offset);
    }
    unsigned group_sum0[1][4] = {};
    #pragma unroll
    for (int part = 0; part < 4; ++part) {
      unsigned act[1][4];
      {
        const uint4 packed = staged_x[part * 258 + ((step - first) * 32 + lane_k)];
        act[0][0] = packed.x;
        act[0][1] = packed.y;
        act[0][2] = packed.z;
        act[0][3] = packed.w;
      }
      #pragma unroll
      for (int row_part = 0; row_part < 4; ++row_part) {
        const unsigned word = words[0][row_part][part];
        const unsigned weight0_0 = table_word(&table[0], permute(word, lane_bytes, 0x00005504u));
        const unsigned weight0_1 = table_word(&table[0], permute(word, lane_bytes, 0x00005514u));
        const unsigned weight0_2 = table_word(&table[0], permute(word, lane_bytes, 0x00005524u));
        const unsigned weight0_3 = table_word(&table[0], permute(word, lane_bytes, 0x00005534u));
        group_sum0[0][row_part] = h2_fma(weight0_0, act[0][0], group_sum0[0][row_part]);
        group_sum0[0][row_part] = h2_fma(weight0_1, act[0][1], group_sum0[0][row_part]);
        group_sum0[0][row_part] = h2_fma(weight0_2, act[0][2], group_sum0[0][row_part]);
        group_sum0[0][row_part] = h2_fma(weight0_3, act[0][3], group_sum0[0][row_part]);
      }
    }
    float folded0[1][4] = {};
    mma_f16(folded0[0][0], folded0[0][1], folded0[0][2], folded0[0][3], group_sum0[0][0], group_sum0[0][2], group_sum0[0][1], group_sum0[0][3], own0, own1);
    #pragma unroll
    for (int row_part = 0; row_part < 4; ++row_part) {
      const float coefficient0 = bits_f32(entry[0][row_part][0]);
      total[0][row_part] = fma_f32(coefficient0, folded0[0][row_part], total[0][row_part]);
    }
  }

  // lanes of a row add up by shuffles; warps meet in shared memory
  #pragma unroll
  for (int row_part = 0; row_part < 4; ++row_part) {
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 16);
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 8);
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 4);
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 2);
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 1);
    if (lane_k == 0) {
      red[warp_k * 32 + (warp_n * 4 + row_part) + lane_row] = total[0][row_part] * 256.0f;
    }
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  for (int i = thread; i < 32; i += 512) {
    const int row = i % 32;
    const int token = i / 32;
    float sum = red[token * 32 + row];
    sum = sum + red[(1 + token) * 32 + row];
    const int n = row_tile * 32 + row;
    const int m = token_tile + token;
    if ((n < N) && (m < tokens)) {
      out[m * N + n] = to_f16(sum);
    }
  }
}
