from ._files import read_mask as read_mask
from ._masks import box_mask as box_mask, centre_mask as centre_mask, random_mask as random_mask
from ._operator import Inpainting as Inpainting, InpaintingPerImage as InpaintingPerImage, Masking as Masking
