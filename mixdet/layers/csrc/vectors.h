// SIMD vectors across channels: reading them from tensors of any layout and type, and writing them to such tensors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace mixdet {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
constexpr int kAhead = 16;                 // distance of the prefetch, in pixels
constexpr int64_t kFarBytes = 512 * 1024;  // a larger tensor is not expected to be in a core's own caches

template <typename T>
struct Simd {
  typedef T Vec __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / sizeof(T);
};
template <typename T>
using Vec = typename Simd<T>::Vec;

// A batch of images with any strides (in elements).
template <typename S>
struct View {
  S* data;
  int64_t batch, channels, height, width;
  int64_t batch_step, channel_step, row_step, pixel_step;
  bool far() const { return batch * channels * height * width * static_cast<int64_t>(sizeof(S)) > kFarBytes; }
};

// A buffer that each thread keeps, because new memory pages would cost time at every call.
template <typename T>
Vec<T>* scratch(int64_t vectors, int slot) {
  struct Buffer {
    std::unique_ptr<Vec<T>[]> data;
    int64_t size = 0;
  };
  thread_local Buffer buffers[2];
  Buffer& buffer = buffers[slot];
  if (buffer.size < vectors) {
    buffer.data.reset(new Vec<T>[vectors]);
    buffer.size = vectors;
  }
  return buffer.data.get();
}

// Copies `count` values, fewer than 2 * Size, in pieces that a single instruction can move.
template <int Size, typename T>
void copy(T* to, const T* from, int count) {
  if (count & Size) {
    std::memcpy(to, from, Size * sizeof(T));
    to += Size;
    from += Size;
  }
  if constexpr (Size > 1) copy<Size / 2>(to, from, count);
}

// Copies rows [top, top + rows), columns [left, left + columns) of channels [first, first + channels) into
// out[vector][row][column], with zeros outside the image and beyond the last channel.
template <typename T, typename S>
void load(const View<const S>& image, int64_t n, int64_t first, int64_t channels, int64_t top, int64_t rows,
          int64_t left, int64_t columns, Vec<T>* out) {
  constexpr int lanes = Simd<T>::lanes;
  const int64_t plane = rows * columns;
  const int64_t begin = std::min(columns, std::max<int64_t>(0, -left));
  const int64_t end = std::max(begin, std::min(columns, image.width - left));
  const S* origin = image.data + n * image.batch_step + first * image.channel_step;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t y = top + r;
    const bool inside = y >= 0 && y < image.height;
    for (int64_t c = 0; c < channels; c += lanes) {
      Vec<T>* row = out + c / lanes * plane + r * columns;
      const int count = static_cast<int>(std::min<int64_t>(lanes, channels - c));
      if (!inside) {
        std::fill(row, row + columns, Vec<T>{});
        continue;
      }
      std::fill(row, row + begin, Vec<T>{});
      std::fill(row + end, row + columns, Vec<T>{});
      const S* source = origin + c * image.channel_step + y * image.row_step + (left + begin) * image.pixel_step;
      if (image.channel_step == 1 && count == lanes) {
        for (int64_t x = begin; x < end; ++x, source += image.pixel_step) {
          // pixels lie too far apart for the processor to prefetch them across pages; the next row follows this one
          __builtin_prefetch(source + kAhead * image.pixel_step);
          if constexpr (std::is_same_v<T, S>) {
            std::memcpy(row + x, source, sizeof(Vec<T>));
          } else {
            Vec<T> value;
            for (int i = 0; i < lanes; ++i) value[i] = static_cast<T>(source[i]);
            row[x] = value;
          }
        }
      } else if (image.channel_step == 1) {
        for (int64_t x = begin; x < end; ++x, source += image.pixel_step) {
          Vec<T> value{};
          if constexpr (std::is_same_v<T, S>) {
            copy<lanes / 2>(reinterpret_cast<T*>(&value), source, count);
          } else {
            for (int i = 0; i < count; ++i) value[i] = static_cast<T>(source[i]);
          }
          row[x] = value;
        }
      } else {
        if (count < lanes) std::fill(row + begin, row + end, Vec<T>{});
        T* values = reinterpret_cast<T*>(row + begin);
        for (int i = 0; i < count; ++i, source += image.channel_step) {
          for (int64_t x = 0; x < end - begin; ++x)
            values[x * lanes + i] = static_cast<T>(source[x * image.pixel_step]);
        }
      }
    }
  }
}

// Prefetches channels [first, first + channels) of rows [top, bottom) into the L2 cache, a part at each of `steps`
// steps: in channels_last the pixels lie too far apart for the processor to do so by itself.
template <typename S>
struct Prefetch {
  static constexpr int64_t kLine = 64 / sizeof(S);
  S* pixel;
  int64_t channels, left, pixel_step, part;

  Prefetch(const View<S>& image, int64_t n, int64_t first, int64_t channels, int64_t top, int64_t bottom, int64_t steps)
      : pixel(image.data + n * image.batch_step + first + top * image.row_step),
        channels(std::min(channels, image.channels - first)),
        left(image.far() && image.channel_step == 1 && first < image.channels ? (bottom - top) * image.width : 0),
        pixel_step(image.pixel_step),
        part((left + steps - 1) / steps) {}

  void step() {
    for (const int64_t end = std::max<int64_t>(0, left - part); left > end; --left, pixel += pixel_step)
      for (int64_t c = 0; c < channels; c += kLine) __builtin_prefetch(pixel + c, 0, 2);
  }
};

// Writes `count` channels of a row of results; `pixel_step`: the distance between the row's pixels in the image.
template <typename T, typename S>
void store(const Vec<T>* row, int64_t width, int count, S* out, int64_t channel_step, int64_t pixel_step) {
  constexpr int lanes = Simd<T>::lanes;
  if (channel_step == 1 && count == lanes) {
    for (int64_t x = 0; x < width; ++x, out += pixel_step) {
      if constexpr (std::is_same_v<T, S>) {
        std::memcpy(out, row + x, sizeof(Vec<T>));
      } else {
        for (int i = 0; i < lanes; ++i) out[i] = static_cast<S>(row[x][i]);
      }
    }
  } else if (channel_step == 1) {
    for (int64_t x = 0; x < width; ++x, out += pixel_step) {
      if constexpr (std::is_same_v<T, S>) {
        copy<lanes / 2>(out, reinterpret_cast<const T*>(row + x), count);
      } else {
        for (int i = 0; i < count; ++i) out[i] = static_cast<S>(row[x][i]);
      }
    }
  } else {
    const T* values = reinterpret_cast<const T*>(row);
    for (int i = 0; i < count; ++i, out += channel_step) {
      for (int64_t x = 0; x < width; ++x) out[x * pixel_step] = static_cast<S>(values[x * lanes + i]);
    }
  }
}

enum class Activation { none, relu, relu6 };

template <typename T>
void activate(Vec<T>* row, int64_t width, Activation activation) {
  T* values = reinterpret_cast<T*>(row);
  const int64_t size = width * Simd<T>::lanes;
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      for (int64_t i = 0; i < size; ++i) values[i] = values[i] < T(0) ? T(0) : values[i];
      break;
    case Activation::relu6:
      for (int64_t i = 0; i < size; ++i) {
        const T value = values[i] < T(0) ? T(0) : values[i];
        values[i] = value > T(6) ? T(6) : value;
      }
      break;
  }
}

}  // namespace mixdet
