from .atomic import atomic_write as atomic_write, write_json as write_json
from .bsds500 import BSDS500 as BSDS500
from .celeba import CelebA as CelebA
from .copies import Copy as Copy, find_copies as find_copies
from .crops import fit as fit
from .figures import comparison as comparison, overview as overview, save_figure as save_figure
from .files import read_array as read_array, read_image as read_image, write_image as write_image
from .folder import Folder as Folder
from .image_file import FileDataset as FileDataset, ImageFile as ImageFile
from .measures import PSNR as PSNR, SSIM as SSIM, psnr as psnr, ssim as ssim
from .photographs import Photographs as Photographs
from .stl10 import STL10 as STL10, iresnet_split as iresnet_split
from .subset import Readable as Readable, Subset as Subset, readable as readable
