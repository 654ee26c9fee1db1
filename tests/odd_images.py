"""Fifty unusual or broken image files, and which of them can be read."""

import cv2
import numpy as np
from PIL import Image

SIZE = (48, 32)  # width, height


def scene(width=SIZE[0], height=SIZE[1]) -> np.ndarray:
    """Red left of the middle, blue right of it, RGB."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 255
    image[:, width // 2 :, 2] = 255
    return image


def write_odd_images(folder) -> dict[str, bool]:
    """Write the files into ``folder``; return by name whether each can be read."""
    rgb, readable = Image.fromarray(scene()), {}

    def save(name, image, **options):
        image.save(folder / name, **options)
        readable[name] = True

    def raw(name, content, ok=False):
        (folder / name).write_bytes(content)
        readable[name] = ok

    for suffix in ('jpg', 'jpeg', 'png', 'bmp', 'webp', 'tif', 'tiff', 'ppm', 'gif', 'jp2'):
        save(f'plain.{suffix}', rgb)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f'exif{orientation}.jpg', rgb, exif=exif, quality=95)
    save('grey.png', rgb.convert('L'))
    save('grey.jpg', rgb.convert('L'))
    save('grey.pgm', rgb.convert('L'))
    save('grey_alpha.png', rgb.convert('LA'))
    save('alpha.png', rgb.convert('RGBA'))
    save('alpha.webp', rgb.convert('RGBA'))
    save('palette.png', rgb.convert('P'))
    save('bits.png', rgb.convert('1'))
    save('cmyk.jpg', rgb.convert('CMYK'))
    save('progressive.jpg', rgb, progressive=True)
    save('animated.gif', rgb, save_all=True, append_images=[rgb.rotate(180)])
    save('UPPER.JPG', rgb)
    save('with space.jpg', rgb)
    save('naïve-文.png', rgb)
    for name, shape in (('one_pixel', (1, 1)), ('row', (700, 1)), ('column', (1, 700)), ('two', (2, 2))):
        save(f'{name}.png', Image.fromarray(scene(*shape)))
    save('large.jpg', Image.fromarray(scene(9000, 6000)))
    for name, dtype, channels in (('deep_grey', np.uint16, 1), ('deep', np.uint16, 3)):
        deep = scene()[..., ::-1].astype(dtype) * 257
        cv2.imwrite(str(folder / f'{name}.png'), deep if channels == 3 else deep[..., 0])
        readable[f'{name}.png'] = True
    cv2.imwrite(str(folder / 'deep.tiff'), scene()[..., ::-1].astype(np.uint16) * 257)
    readable['deep.tiff'] = True
    (folder / 'really_png.jpg').write_bytes((folder / 'plain.png').read_bytes())
    readable['really_png.jpg'] = True

    png = (folder / 'plain.png').read_bytes()
    raw('empty.jpg', b'')
    raw('text.jpg', b'not an image at all')
    raw('page.png', b'<html><body>404 not found</body></html>')
    raw('head_only.jpg', (folder / 'plain.jpg').read_bytes()[:20])
    raw('head_only.png', png[:30])
    raw('zeros.bmp', bytes(200))
    raw('random.webp', np.random.default_rng(0).bytes(500))
    raw('damaged.png', png[:20] + bytes(40) + png[60:])
    (folder / 'dangling.jpg').symlink_to(folder / 'nowhere.jpg')
    readable['dangling.jpg'] = False
    return readable
