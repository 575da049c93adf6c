// Where windows and their pixels lie in maps.
#pragma once

#include "restore_native.h"
#include "vectors.h"

namespace ISA {

struct Place {  // of a window among all, down and across counting windows
    int64_t image, down, across;
    int64_t kind;  // see RestoreGrid.labels
};

// Where windows lie in maps of images that are cut into them.
struct Windows {
    int64_t images, down, across;
    bool shifted_down, shifted_across;

    Windows(int64_t images, int64_t height, int64_t width, const RestoreGrid &grid)
        : images(images), down(height / grid.rows), across(width / grid.columns),
          shifted_down(grid.shift_y != 0), shifted_across(grid.shift_x != 0) {}

    int64_t count() const { return images * down * across; }

    Place place(int64_t window) const {
        const int64_t in_image = window % (down * across);
        const int64_t row = in_image / across, column = in_image % across;
        const int64_t kind = (shifted_down && row == down - 1 ? 2 : 0) +
                             (shifted_across && column == across - 1 ? 1 : 0);
        return {window / (down * across), row, column, kind};
    }
};

// Where the pixels of LANES tokens lie.
struct Pixels {
    int64_t image[LANES], y[LANES], x[LANES];

    // Tokens from `token` on, counted from those of window `first` on. Behind the last of `count`
    // it is taken once more.
    void find(const Windows &windows, const RestoreGrid &grid, int64_t first, int64_t token,
              int64_t count) {
        const int64_t height = windows.down * grid.rows, width = windows.across * grid.columns;
        int64_t window = first + token / grid.tokens, index = token % grid.tokens;
        Place place = windows.place(window);
        for (int64_t t = 0; t < LANES; ++t) {
            const int64_t down = place.down * grid.rows + grid.shift_y + grid.y[index];
            const int64_t across = place.across * grid.columns + grid.shift_x + grid.x[index];
            image[t] = place.image;
            if (grid.halo) {
                y[t] = down;
                x[t] = across;
                if (down < 0 || down >= height || across < 0 || across >= width) image[t] = -1;
            } else {
                y[t] = down < height ? down : down - height;
                x[t] = across < width ? across : across - width;
            }
            if (t + 1 >= count) continue;
            if (++index == grid.tokens) {
                index = 0;
                place = windows.place(++window);
            }
        }
    }

    // `outside` is where tokens that lie beyond the map are read.
    template <typename Number>
    void in(const RestoreMap &map, Number **rows, Number *outside = nullptr) const {
        Number *const data = static_cast<Number *>(map.data);
        for (int64_t t = 0; t < LANES; ++t)
            rows[t] = image[t] < 0 ? outside
                                   : data + image[t] * map.image + y[t] * map.row +
                                         x[t] * map.column;
    }
};

}  // namespace ISA
