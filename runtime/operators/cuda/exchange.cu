// Copies packs of 16 bytes between tensors of all heads, whose rows begin `stride` packs apart, and one piece for each
// rank: the columns of its heads, (ranks, pictures * tokens, columns). To the pieces if PACKING, else from them. This
// rank's own piece is not among them, but at its place among all tokens: of (pictures, all, columns), from the first of
// its own `tokens` on.
//
// Up to three tensors of `columns` packs for each rank: one of `first_tokens` of a picture, two of `other_tokens`, which
// may be 0.

struct alignas(16) Bytes {
  unsigned int words[4];
};

extern "C" __global__ void exchange(Bytes* first, Bytes* second, Bytes* third, Bytes* first_pieces,
                                    Bytes* second_pieces, Bytes* third_pieces, Bytes* first_own, Bytes* second_own,
                                    Bytes* third_own, long long first_tokens, long long other_tokens,
                                    long long first_all, long long other_all, int pictures, int own_rank, int ranks,
                                    int columns, long long stride) {
  long long pack = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  long long row = pack / (ranks * columns);
  if (row >= pictures * (first_tokens + 2 * other_tokens)) return;
  int column = pack % (ranks * columns), rank = column / columns;
  Bytes *whole = first, *pieces = first_pieces, *own = first_own;
  long long tokens = first_tokens, all = first_all, rows = pictures * tokens;
  if (row >= rows) {
    row -= rows;
    tokens = other_tokens;
    all = other_all;
    rows = pictures * tokens;
    bool is_third = row >= rows;
    if (is_third) row -= rows;
    whole = is_third ? third : second;
    pieces = is_third ? third_pieces : second_pieces;
    own = is_third ? third_own : second_own;
  }
  whole += row * stride + column;
  Bytes* piece = rank == own_rank ? own + (row / tokens * all + row % tokens) * columns
                                  : pieces + (rank * rows + row) * columns;
  piece += column % columns;
#if PACKING
  *piece = *whole;
#else
  *whole = *piece;
#endif
}
