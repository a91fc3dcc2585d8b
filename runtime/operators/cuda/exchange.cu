// Copies packs of 16 bytes between tensors of all heads, whose rows begin `stride` packs apart, and one piece for each
// rank: the columns of its heads, (ranks, rows, columns). To the pieces if PACKING, else from them.
//
// Up to three tensors of `columns` packs for each rank: one of `first_rows`, two of `other_rows`, which may be 0.

struct alignas(16) Bytes {
  unsigned int words[4];
};

extern "C" __global__ void exchange(Bytes* first, Bytes* second, Bytes* third, Bytes* first_pieces,
                                    Bytes* second_pieces, Bytes* third_pieces, long long first_rows,
                                    long long other_rows, int ranks, int columns, long long stride) {
  long long pack = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  long long row = pack / (ranks * columns);
  if (row >= first_rows + 2 * other_rows) return;
  int column = pack % (ranks * columns), rank = column / columns;
  Bytes *whole = first, *pieces = first_pieces;
  long long rows = first_rows;
  if (row >= first_rows) {
    row -= first_rows;
    rows = other_rows;
    bool is_third = row >= rows;
    if (is_third) row -= rows;
    whole = is_third ? third : second;
    pieces = is_third ? third_pieces : second_pieces;
  }
  whole += row * stride + column;
  pieces += (rank * rows + row) * columns + column % columns;
#if PACKING
  *pieces = *whole;
#else
  *whole = *pieces;
#endif
}
